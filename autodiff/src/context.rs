//! The context of a backward rule: the node, its types, and the patch to extend.

use std::collections::BTreeSet;

use bcosc_ir::ops::AttributeValue;
use bcosc_ir::views::{AxesOp, reduce, reduce_to, unsqueeze};
use bcosc_ir::{Attribute, DataType, Dim, Graph, NodeId, Op, Operand, Patch, Tensor, Value};

use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

/// Cotangents of operands by slot.
pub(crate) type Found = Result<Vec<(u32, Operand)>, Reason>;

/// A rule of one operator.
pub(crate) type Rule = fn(&mut RuleContext<'_>) -> Found;

/// One node in reverse mode.
pub(crate) struct RuleContext<'g> {
    pub graph: &'g Graph,
    pub opset: i64,
    pub node: NodeId,
    pub op: &'g Op,
    /// Slots of the operands whose cotangents are needed.
    pub wanted: &'g BTreeSet<u32>,
    /// Cotangents of the outputs; `None` if nothing linear uses one.
    pub cotangents: Vec<Option<Operand>>,
    pub patch: Patch,
}

impl<'g> RuleContext<'g> {
    /// The cotangent of the first output, which must be the only one that is used.
    pub fn dy(&self) -> Result<Operand, Reason> {
        let (first, more) = self.cotangents.split_first().ok_or(Reason::Malformed)?;
        if more.iter().any(Option::is_some) {
            return Err(Reason::NoBackwardRuleFor("its second output"));
        }
        first.ok_or(Reason::NoBackwardRule)
    }

    /// The cotangent of the first operand, where it is that of the output times a factor.
    pub fn scaled_by(&mut self, factor: Operand) -> Found {
        let dy = self.dy()?;
        Ok(vec![(0, self.mul(dy, factor))])
    }

    /// Whether an operand's cotangent is needed.
    pub fn wants(&self, slot: u32) -> bool {
        self.wanted.contains(&slot)
    }

    /// A required operand.
    pub fn operand(&self, slot: u32) -> Result<Value, Reason> {
        self.graph.input(self.node, slot).ok_or(Reason::Malformed)
    }

    /// The first output.
    pub fn y(&self) -> Value {
        self.graph.output(self.node, 0)
    }

    /// Dimensions of a value.
    pub fn dims(&self, value: Value) -> Result<Vec<Dim>, Reason> {
        let found = self.graph.value_type(value).and_then(|t| t.shape);
        found.ok_or_else(|| Reason::UnknownShape(self.graph.value_name(value).to_owned()))
    }

    /// Dimensions of a value, all of which must be known.
    pub fn known_dims(&self, value: Value) -> Result<Vec<i64>, Reason> {
        let dims = self.dims(value)?;
        let known = dims.iter().map(|d| d.known().map(|d| d as i64));
        known
            .collect::<Option<_>>()
            .ok_or_else(|| Reason::UnknownShape(self.graph.value_name(value).to_owned()))
    }

    /// Element type of a value; single precision where it is not known.
    pub fn dtype(&self, value: Value) -> DataType {
        self.graph
            .value_type(value)
            .map_or(DataType::Float, |t| t.dtype)
    }

    /// The integers of an operand that must be a constant; `None` if it is left out.
    pub fn integers(&self, slot: u32) -> Result<Option<Vec<i64>>, Reason> {
        let Some(value) = self.graph.input(self.node, slot) else {
            return Ok(None);
        };
        let name = || self.graph.value_name(value).to_owned();
        let tensor = self
            .graph
            .constant(value)
            .ok_or_else(|| Reason::NotConstant(name()))?;
        tensor.to_i64s().map(Some).map_err(|_| Reason::Malformed)
    }

    /// An attribute, or its default.
    pub fn attribute<T: AttributeValue<'g>>(&self, name: &str) -> Result<T, Reason> {
        self.op.get(name).ok_or(Reason::Malformed)
    }

    /// Integers that are an attribute in old opsets and an operand in new ones.
    pub fn attribute_or(&self, name: &str, slot: u32) -> Result<Option<Vec<i64>>, Reason> {
        match self.op.get::<&[i64]>(name) {
            Some(values) => Ok(Some(values.to_vec())),
            None => self.integers(slot),
        }
    }

    /// An axis counted from the front.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Reason> {
        let rank = rank as i64;
        let found = if axis < 0 { axis + rank } else { axis };
        match (0..rank).contains(&found) {
            true => Ok(found as usize),
            false => Err(Reason::Malformed),
        }
    }

    pub fn op(&mut self, op_type: &str, inputs: &[Operand]) -> Operand {
        self.patch.op(Op::new("", op_type), inputs)
    }

    pub fn op_with(
        &mut self,
        op_type: &str,
        inputs: &[Operand],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> Operand {
        let op = attributes.into_iter().fold(Op::new("", op_type), Op::with);
        self.patch.op(op, inputs)
    }

    /// A number of a value's type.
    pub fn number(&mut self, like: Value, x: f64) -> Operand {
        let tensor = weights::tensor(self.dtype(like), &[], &[x]);
        self.patch.parameter("number", tensor)
    }

    /// The lowest number of a value's type.
    pub fn lowest(&mut self, like: Value) -> Operand {
        let lowest = match self.dtype(like) {
            DataType::Float16 => half::f16::MIN.to_f64(),
            DataType::Bfloat16 => half::bf16::MIN.to_f64(),
            _ => f64::from(f32::MIN),
        };
        self.number(like, lowest)
    }

    pub fn ints(&mut self, values: &[i64]) -> Operand {
        self.patch.parameter("sizes", Tensor::i64_vec(values))
    }

    pub fn add(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("Add", &[a, b])
    }

    pub fn sub(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("Sub", &[a, b])
    }

    pub fn mul(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("Mul", &[a, b])
    }

    pub fn div(&mut self, a: Operand, b: Operand) -> Operand {
        self.op("Div", &[a, b])
    }

    pub fn neg(&mut self, x: Operand) -> Operand {
        self.op("Neg", &[x])
    }

    /// A value times a number of the type of another.
    pub fn times(&mut self, x: Operand, factor: f64, like: Value) -> Operand {
        let factor = self.number(like, factor);
        self.mul(x, factor)
    }

    pub fn cast(&mut self, x: Operand, to: DataType) -> Operand {
        self.op_with("Cast", &[x], [Attribute::int("to", to.to_i32().into())])
    }

    /// The sizes of a value as integers: a constant where they are known.
    pub fn shape(&mut self, of: Value) -> Operand {
        match self.known_dims(of) {
            Ok(dims) => self.ints(&dims),
            Err(_) => self.op("Shape", &[of.into()]),
        }
    }

    /// One size of a value, as a vector of one integer.
    pub fn size(&mut self, of: Value, axis: usize) -> Operand {
        let dims = self.dims(of).unwrap_or_default();
        if let Some(size) = dims.get(axis).and_then(Dim::known) {
            return self.ints(&[size as i64]);
        }
        let shape = self.op("Shape", &[of.into()]);
        let index = self.ints(&[axis as i64]);
        self.op_with("Gather", &[shape, index], [Attribute::int("axis", 0)])
    }

    /// Numbers in another order of dimensions, as a value has them.
    pub fn reshape_like(&mut self, x: Operand, like: Value) -> Operand {
        let shape = match self.dims(like) {
            // One size that is open can be left to the runtime.
            Ok(dims)
                if dims.iter().filter(|d| d.known().is_none()).count() == 1
                    && !dims.contains(&Dim::Known(0)) =>
            {
                let sizes: Vec<i64> = dims
                    .iter()
                    .map(|d| d.known().map_or(-1, |d| d as i64))
                    .collect();
                self.ints(&sizes)
            }
            _ => self.shape(like),
        };
        self.op("Reshape", &[x, shape])
    }

    pub fn reshape(&mut self, x: Operand, sizes: &[i64]) -> Operand {
        let shape = self.ints(sizes);
        self.op("Reshape", &[x, shape])
    }

    pub fn transpose(&mut self, x: Operand, perm: &[i64]) -> Operand {
        self.op_with("Transpose", &[x], [Attribute::ints("perm", perm)])
    }

    /// A value of a rank with its last two axes swapped.
    pub fn turned(&mut self, x: Operand, rank: usize) -> Operand {
        let mut perm: Vec<i64> = (0..rank as i64).collect();
        perm.swap(rank - 2, rank - 1);
        self.transpose(x, &perm)
    }

    pub fn reduce(&mut self, kind: AxesOp, x: Operand, axes: &[i64]) -> Operand {
        reduce(&mut self.patch, self.opset, kind, x, axes)
    }

    pub fn reduce_to(&mut self, kind: AxesOp, x: Operand, axes: &[i64]) -> Operand {
        reduce_to(&mut self.patch, self.opset, kind, x, axes)
    }

    pub fn unsqueeze(&mut self, x: Operand, axes: &[i64]) -> Operand {
        unsqueeze(&mut self.patch, self.opset, x, axes)
    }

    /// Zeros around a value: at the beginning of each axis, then at the end of each.
    pub fn pad(&mut self, x: Operand, pads: &[i64]) -> Operand {
        if pads.iter().all(|&p| p == 0) {
            return x;
        }
        let pads = self.ints(pads);
        self.op("Pad", &[x, pads])
    }

    /// A range of some axes; `i64::MAX` is the end.
    pub fn slice(&mut self, x: Operand, axes: &[i64], starts: &[i64], ends: &[i64]) -> Operand {
        let [starts, ends, axes] = [starts, ends, axes].map(|values| self.ints(values));
        self.op("Slice", &[x, starts, ends, axes])
    }

    /// The cotangent of an operand that was broadcast to the first output: summed over the broadcast
    /// axes.
    pub fn unbroadcast(&mut self, x: Operand, to: Value) -> Result<Operand, Reason> {
        let (wide, narrow) = (self.dims(self.y())?, self.dims(to)?);
        self.unbroadcast_from(x, &wide, &narrow)
    }

    /// As [`RuleContext::unbroadcast`], from given dimensions.
    pub fn unbroadcast_from(
        &mut self,
        x: Operand,
        wide: &[Dim],
        narrow: &[Dim],
    ) -> Result<Operand, Reason> {
        let missing = wide
            .len()
            .checked_sub(narrow.len())
            .ok_or(Reason::Malformed)?;
        let one = Dim::Known(1);
        let mut x = x;
        let repeated: Vec<i64> = (0..narrow.len())
            .filter(|&i| narrow[i] == one && wide[missing + i] != one)
            .map(|i| (missing + i) as i64)
            .collect();
        if !repeated.is_empty() {
            x = self.reduce(AxesOp::ReduceSum, x, &repeated);
        }
        if missing > 0 {
            let leading: Vec<i64> = (0..missing as i64).collect();
            x = self.reduce_to(AxesOp::ReduceSum, x, &leading);
        }
        Ok(x)
    }
}
