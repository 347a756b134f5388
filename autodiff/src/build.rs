//! Building arithmetic in a patch.

use bcosc_ir::views::{AxesOp, reduce, reduce_to, unsqueeze};
use bcosc_ir::{Attribute, DataType, Op, Operand, Patch, Tensor};
use bcosc_passes::analysis::weights;

/// Adds operators to a patch, with numbers of one floating-point type.
pub(crate) struct Build<'p> {
    pub patch: &'p mut Patch,
    pub opset: i64,
    pub dtype: DataType,
}

impl Build<'_> {
    pub fn op(&mut self, op_type: &str, inputs: &[Operand]) -> Operand {
        self.patch.op(Op::new("", op_type), inputs)
    }

    pub fn op_with(&mut self, op_type: &str, inputs: &[Operand], attribute: Attribute) -> Operand {
        self.patch.op(Op::new("", op_type).with(attribute), inputs)
    }

    /// A scalar.
    pub fn number(&mut self, x: f64) -> Operand {
        let tensor = weights::tensor(self.dtype, &[], &[x]);
        self.patch.parameter("number", tensor)
    }

    /// A vector of integers.
    pub fn ints(&mut self, values: &[i64]) -> Operand {
        self.patch.parameter("sizes", Tensor::i64_vec(values))
    }

    pub fn add(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Operand {
        self.op("Add", &[a.into(), b.into()])
    }

    pub fn sub(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Operand {
        self.op("Sub", &[a.into(), b.into()])
    }

    pub fn mul(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Operand {
        self.op("Mul", &[a.into(), b.into()])
    }

    pub fn div(&mut self, a: impl Into<Operand>, b: impl Into<Operand>) -> Operand {
        self.op("Div", &[a.into(), b.into()])
    }

    /// A value times a number; nothing is added for 1.
    pub fn times(&mut self, x: Operand, factor: f64) -> Operand {
        if factor == 1.0 {
            return x;
        }
        let factor = self.number(factor);
        self.mul(x, factor)
    }

    pub fn cast(&mut self, x: impl Into<Operand>, to: DataType) -> Operand {
        let to = Attribute::int("to", to.to_i32().into());
        self.op_with("Cast", &[x.into()], to)
    }

    /// A reduction that keeps the reduced axes with size 1.
    pub fn reduce(&mut self, kind: AxesOp, x: impl Into<Operand>, axes: &[i64]) -> Operand {
        reduce(self.patch, self.opset, kind, x.into(), axes)
    }

    /// A reduction that drops the reduced axes.
    pub fn reduce_to(&mut self, kind: AxesOp, x: impl Into<Operand>, axes: &[i64]) -> Operand {
        reduce_to(self.patch, self.opset, kind, x.into(), axes)
    }

    /// The mean of all elements, a scalar.
    pub fn mean(&mut self, x: Operand) -> Operand {
        self.op_with("ReduceMean", &[x], Attribute::int("keepdims", 0))
    }

    /// The sum of all elements, a scalar.
    pub fn sum(&mut self, x: Operand) -> Operand {
        self.op_with("ReduceSum", &[x], Attribute::int("keepdims", 0))
    }

    pub fn unsqueeze(&mut self, x: impl Into<Operand>, axes: &[i64]) -> Operand {
        unsqueeze(self.patch, self.opset, x.into(), axes)
    }
}
