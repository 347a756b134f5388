//! Convolutions with constant weights: sums over channels and windows, and broadcasts to channels.

use bcosc_ir::views::Window;
use bcosc_ir::{DataType, Op, Operand, Patch};

use crate::analysis::weights;

/// `factor * sum + epsilon`, over each group's channels and the window.
pub(crate) struct Ones<'a> {
    /// Output channels.
    pub out: u64,
    /// Input channels per group.
    pub per_group: u64,
    /// Groups of channels.
    pub group: u64,
    /// The window.
    pub window: &'a Window,
    /// Factor of the sum.
    pub factor: f64,
    /// Added to the sum.
    pub epsilon: f64,
}

impl<'a> Ones<'a> {
    /// The plain sum over a window, of as many output channels as there are groups.
    pub fn sum(window: &'a Window, group: u64, per_group: u64) -> Self {
        Ones {
            out: group,
            per_group,
            group,
            window,
            factor: 1.0,
            epsilon: 0.0,
        }
    }

    /// Adds the convolution to a patch.
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
