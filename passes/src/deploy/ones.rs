//! Convolutions whose weights are all the same: sums over channels and windows, one value for many channels.

use bcosc_ir::views::Window;
use bcosc_ir::{DataType, Op, Operand, Patch};

use crate::analysis::weights;

/// `factor * sum + epsilon`, over each group's channels and the window.
pub(crate) struct Ones<'a> {
    /// Channels put out.
    pub out: u64,
    /// Channels that each of them sees.
    pub per_group: u64,
    pub group: u64,
    pub window: &'a Window,
    pub factor: f64,
    pub epsilon: f64,
}

impl Ones<'_> {
    pub fn write(&self, patch: &mut Patch, name: &str, x: Operand, dtype: DataType) -> Operand {
        let mut dims = vec![self.out, self.per_group];
        dims.extend(self.window.kernel.iter().map(|&k| k as u64));
        let count = dims.iter().product::<u64>() as usize;
        let weight = weights::tensor(dtype, &dims, &vec![self.factor; count]);
        let mut inputs = vec![x, patch.parameter("ones", weight)];
        if self.epsilon != 0.0 {
            let epsilons = vec![self.epsilon; self.out as usize];
            let epsilons = weights::tensor(dtype, &[self.out], &epsilons);
            inputs.push(patch.parameter("epsilon", epsilons));
        }
        let mut op = self.window.write(Op::new("", "Conv").named(name));
        if self.group > 1 {
            op = op.with_int("group", self.group as i64);
        }
        patch.op(op, &inputs)
    }
}
