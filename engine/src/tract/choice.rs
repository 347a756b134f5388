//! Choices by a comparison, such as the derivative of ReLU, in one walk along memory.
//!
//! ```text
//! y = Where (Greater (a, b), t, f)    y = Choice <Greater> (a, b, t, f)
//! ```
//!
//! tract follows each operand with an index of its own and makes a tensor of truth values in between, which takes several
//! times as long.

use tract_onnx::prelude::{
    DatumExt, DatumType, TValue, TVec, Tensor, TractResult, TypedFact, TypedModel,
};
use tract_onnx::tract_core::broadcast::multi_broadcast;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::logic::{CompEq, CompGT, CompGTE, CompLT, CompLTE, Iff};
use tract_onnx::tract_core::{args_4, op_as_typed_op, op_out_of_plan};
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, IntoTValue, IntoTensor, Op, StaticName, TypedModelPatch, TypedNode,
    TypedOp, as_op, tvec,
};

/// Elements that are chosen in one go; so many copies of an operand that is a single number fit a cache.
const BLOCK: usize = 1024;

/// `t` where the comparison of `a` and `b` holds, else `f`, for operands (a, b, t, f). Each has the shape of the result
/// or is a single number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Choice(Comparison);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Replaces choices by comparisons of single-precision numbers.
pub(crate) fn choose(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    if !node.op_is::<Iff>() {
        return Ok(None);
    }
    let compared = model.node(node.inputs[0].node);
    let Some(comparison) = Comparison::of(compared) else {
        return Ok(None);
    };
    let operands = [&compared.inputs[..], &node.inputs[1..]].concat();
    for &operand in &operands {
        if !fits(model.outlet_fact(operand)?, &node.outputs[0].fact) {
            return Ok(None);
        }
    }
    let choice = Choice(comparison);
    TypedModelPatch::replace_single_op(model, node, &operands, choice).map(Some)
}

/// Whether an operand is in single precision, and has the shape of the result or one element.
fn fits(operand: &TypedFact, result: &TypedFact) -> bool {
    let sizes = (operand.shape.as_concrete(), result.shape.as_concrete());
    operand.datum_type == DatumType::F32
        && matches!(sizes, (Some(sizes), Some(all)) if sizes == all || sizes.iter().all(|&size| size == 1))
}

impl Op for Choice {
    fn name(&self) -> StaticName {
        "Choice".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Choice {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes: TVec<_> = inputs.iter().map(|fact| fact.shape.to_tvec()).collect();
        let shape = multi_broadcast(&shapes)?;
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

impl EvalOp for Choice {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (a, b, t, f) = args_4!(inputs);
        let shape = multi_broadcast(&[a.shape(), b.shape(), t.shape(), f.shape()])?;
        let [a, b, f] = [&a, &b, &f].map(|operand| Operand::of(operand));
        let (a, b, f) = (a?, b?, f?);
        // In place where nothing else holds these numbers.
        let mut result = match t.shape() == &shape[..] {
            true => t.into_tensor(),
            false => t.broadcast_to_shape(&shape)?,
        };
        let mut plain = result.try_as_plain_ram_mut()?;
        let blocks = plain.as_slice_mut::<f32>()?.chunks_mut(BLOCK);
        for (index, chosen) in blocks.enumerate() {
            let (start, end) = (index * BLOCK, index * BLOCK + chosen.len());
            let [a, b, f] = [&a, &b, &f].map(|operand| operand.block(start, end));
            self.0.keep(chosen, [a, b], f);
        }
        Ok(tvec!(result.into_tvalue()))
    }
}

impl Comparison {
    fn of(node: &TypedNode) -> Option<Self> {
        let TypedBinOp(op, _) = node.op_as()?;
        match op {
            op if op.is::<CompEq>() => Some(Comparison::Equal),
            op if op.is::<CompGT>() => Some(Comparison::Greater),
            op if op.is::<CompGTE>() => Some(Comparison::GreaterOrEqual),
            op if op.is::<CompLT>() => Some(Comparison::Less),
            op if op.is::<CompLTE>() => Some(Comparison::LessOrEqual),
            _ => None,
        }
    }

    /// Keeps what is chosen where the comparison holds, and takes the others elsewhere.
    fn keep(self, chosen: &mut [f32], compared: [&[f32]; 2], others: &[f32]) {
        match self {
            Comparison::Equal => keep(chosen, compared, others, |a, b| a == b),
            Comparison::Greater => keep(chosen, compared, others, |a, b| a > b),
            Comparison::GreaterOrEqual => keep(chosen, compared, others, |a, b| a >= b),
            Comparison::Less => keep(chosen, compared, others, |a, b| a < b),
            Comparison::LessOrEqual => keep(chosen, compared, others, |a, b| a <= b),
        }
    }
}

/// A loop of its own for each comparison, so that the compiler makes vector instructions of it.
fn keep(chosen: &mut [f32], [a, b]: [&[f32]; 2], others: &[f32], holds: impl Fn(f32, f32) -> bool) {
    let holds = a.iter().zip(b).map(|(&a, &b)| holds(a, b));
    for (chosen, (holds, &other)) in chosen.iter_mut().zip(holds.zip(others)) {
        *chosen = if holds { *chosen } else { other };
    }
}

/// The elements of an operand.
enum Operand<'a> {
    Whole(&'a [f32]),
    /// As often as a block needs it.
    Single(Box<[f32; BLOCK]>),
}

impl<'a> Operand<'a> {
    fn of(tensor: &'a Tensor) -> TractResult<Self> {
        let elements = tensor.try_as_plain_ram()?.as_slice::<f32>()?;
        Ok(match elements {
            &[single] => Operand::Single(Box::new([single; BLOCK])),
            _ => Operand::Whole(elements),
        })
    }

    fn block(&self, start: usize, end: usize) -> &[f32] {
        match self {
            Operand::Whole(elements) => &elements[start..end],
            Operand::Single(copies) => &copies[..end - start],
        }
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, DataType, Model, Tensor};
    use bcosc_testing::{input, weight};

    use super::super::lower::testing::{assert_same, operators, own_operators};
    use super::{
        Choice, Comparison, EvalOp, IntoTValue, Tensor as TractTensor, TypedFact, TypedOp,
    };

    /// Not a multiple of a block.
    const WHOLE: &[u64] = &[2, 3, 5, 70];

    /// x where a value compares with another, and otherwise numbers of the shape `others`. Half of `mixed` equals `relu`, and a
    /// quarter each is smaller and larger.
    fn choice(operands: [&str; 2], operator: &str, others: &[u64], dtype: DataType) -> Model {
        let to = |dtype: DataType| [Attribute::int("to", dtype.to_i32().into())];
        input(17, "2,3,5,70")
            .param("f", weight(2, others))
            .param("none", Tensor::f32s(&[], vec![0.0]))
            .param("factors", weight(1, WHOLE))
            .op("Cast", &["x"], "chosen", to(dtype))
            .op("Cast", &["f"], "other", to(dtype))
            .op("Relu", &["chosen"], "relu", [])
            .op("Cast", &["none"], "zero", to(dtype))
            .op("Cast", &["factors"], "factor", to(dtype))
            .op("Mul", &["factor", "relu"], "product", [])
            .op("Add", &["product", "relu"], "mixed", [])
            .op(operator, &operands, "holds", [])
            .op("Where", &["holds", "chosen", "other"], "where", [])
            .op("Cast", &["where"], "y", to(DataType::Float))
            .output("y")
            .finish()
            .unwrap()
    }

    fn chooses(model: &Model) -> bool {
        operators(model).contains(&"Choice".to_owned())
    }

    #[test]
    fn every_comparison_chooses() {
        for operator in ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"] {
            for operands in [["mixed", "relu"], ["mixed", "zero"], ["zero", "mixed"]] {
                for others in [WHOLE, &[], &[1, 1]] {
                    let model = choice(operands, operator, others, DataType::Float);
                    assert!(chooses(&model), "{operator} {operands:?} {others:?}");
                    assert_same(&model, WHOLE);
                }
            }
        }
    }

    /// As in PyTorch, the derivative of ReLU is 0 behind a closed one whatever the gradient.
    #[test]
    fn what_is_not_chosen_does_not_count() {
        let model = input(17, "2,3,5,70")
            .param("zero", Tensor::f32s(&[], vec![0.0]))
            .op("Log", &["x"], "log", [])
            .op("Div", &["x", "zero"], "infinite", [])
            .op("Greater", &["x", "zero"], "holds", [])
            .op("Where", &["holds", "log", "zero"], "one", [])
            .op("Where", &["holds", "zero", "infinite"], "two", [])
            .op("Greater", &["log", "zero"], "number", [])
            .op("Where", &["number", "infinite", "x"], "three", [])
            .op("Add", &["one", "two"], "some", [])
            .op("Add", &["some", "three"], "y", [])
            .output("y")
            .finish()
            .unwrap();
        assert!(chooses(&model));
        assert_same(&model, WHOLE);
    }

    #[test]
    fn there_may_be_nothing_to_choose() {
        let (none, one) = (tract_zero(&[0, 3]), tract_zero(&[1, 1]));
        let operands = [&none, &one, &none, &one];
        let facts = operands.map(TypedFact::shape_and_dt_of);
        let choice = Choice(Comparison::Greater);
        let fact = &choice.output_facts(&facts.each_ref()).unwrap()[0];
        assert_eq!(fact.shape.as_concrete(), Some(&[0, 3][..]));
        let operands = operands.map(|operand| operand.clone().into_tvalue());
        let chosen = choice.eval_out_of_plan(operands.into_iter().collect());
        assert_eq!(chosen.unwrap().unwrap()[0].shape(), [0, 3]);
    }

    fn tract_zero(shape: &[usize]) -> TractTensor {
        TractTensor::zero::<f32>(shape).unwrap()
    }

    #[test]
    fn others_are_left_to_tract() {
        let compared = ["mixed", "relu"];
        let row = choice(compared, "Greater", &[70], DataType::Float);
        let double = choice(compared, "Greater", WHOLE, DataType::Double);
        for model in [row, double] {
            assert!(own_operators(&model).contains(&"Iff".to_owned()));
            assert!(!chooses(&model));
            assert_same(&model, WHOLE);
        }
    }
}
