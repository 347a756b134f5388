//! Powers of values on few channels.

use bcosc_ir::{DataType, Op, Operand, Patch};

use super::target::OnnxRuntimeCpu;
use crate::analysis::weights;

/// A root, or the reciprocal of one: `x^exponent` by the fastest operators for this number of elements.
pub(crate) fn power(
    patch: &mut Patch,
    x: Operand,
    exponent: f64,
    dtype: DataType,
    count: Option<u64>,
) -> Operand {
    let few = count.is_some_and(|n| n <= OnnxRuntimeCpu::FEW_ELEMENTS);
    let roots = match exponent {
        1.0 => return x,
        0.5 => 1,
        -0.5 if !few => 1,
        -0.25 if !few => 2,
        _ => {
            let exponent = patch.parameter("exponent", weights::tensor(dtype, &[], &[exponent]));
            return patch.op(Op::new("", "Pow"), &[x, exponent]);
        }
    };
    let root = (0..roots).fold(x, |x, _| patch.op(Op::new("", "Sqrt"), &[x]));
    match exponent > 0.0 {
        true => root,
        false => patch.op(Op::new("", "Reciprocal"), &[root]),
    }
}
