//! Choices by a comparison, such as the derivative of ReLU, in one walk along memory.
//!
//! ```text
//! y = Where (Greater (a, b), t, f)    y = Choice <Greater> (a, b, t, f)
//! ```
//!
//! tract follows each operand with an index of its own and makes a tensor of truth values in between, which takes about
//! ten times as long.

use tract_onnx::prelude::{
    DatumExt, DatumType, TValue, TVec, Tensor, TractResult, TypedFact, TypedModel,
};
use tract_onnx::tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_onnx::tract_core::ops::logic::{CompEq, CompGT, CompGTE, CompLT, CompLTE, CompNE, Iff};
use tract_onnx::tract_core::{args_4, op_as_typed_op, op_out_of_plan};
use tract_onnx::tract_hir::internal::{
    EvalContext, EvalOp, IntoTValue, IntoTensor, Op, ShapeFact, StaticName, TypedModelPatch,
    TypedNode, TypedOp, as_op, tvec,
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
    NotEqual,
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

impl Comparison {
    fn of(node: &TypedNode) -> Option<Self> {
        let TypedBinOp(op, _) = node.op_as()?;
        let is = |kind: &dyn BinMiniOp| op.name() == kind.name();
        let kinds: [(&dyn BinMiniOp, Self); 6] = [
            (&CompEq, Comparison::Equal),
            (&CompNE, Comparison::NotEqual),
            (&CompGT, Comparison::Greater),
            (&CompGTE, Comparison::GreaterOrEqual),
            (&CompLT, Comparison::Less),
            (&CompLTE, Comparison::LessOrEqual),
        ];
        let found = kinds.into_iter().find(|(kind, _)| is(*kind));
        found.map(|(_, comparison)| comparison)
    }
}

impl Op for Choice {
    fn name(&self) -> StaticName {
        "Choice".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Choice {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let largest = inputs
            .iter()
            .max_by_key(|fact| fact.shape.volume().as_i64());
        let shape = largest
            .map(|fact| fact.shape.clone())
            .unwrap_or_else(ShapeFact::scalar);
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

impl EvalOp for Choice {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (a, b, t, f) = args_4!(inputs);
        let all = [&a, &b, &t, &f];
        let largest = all.into_iter().max_by_key(|operand| operand.len());
        let shape: TVec<usize> = largest.map_or_else(TVec::new, |largest| largest.shape().into());
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
    /// Keeps what is chosen where the comparison holds, and takes the others elsewhere.
    fn keep(self, chosen: &mut [f32], compared: [&[f32]; 2], others: &[f32]) {
        match self {
            Comparison::Equal => keep(chosen, compared, others, |a, b| a == b),
            Comparison::NotEqual => keep(chosen, compared, others, |a, b| a != b),
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
    use bcosc_ir::{Attribute, DataType, Model};
    use bcosc_testing::{input, weight};

    use super::super::lower::testing::{assert_same, operators, own_operators};

    /// Not a multiple of a block.
    const WHOLE: &[u64] = &[2, 3, 5, 70];

    /// The chosen parts of x and 2 x, by whether the ReLU of x compares with numbers of a shape.
    fn choice(operator: &str, compared: &[u64], others: &[u64], dtype: DataType) -> Model {
        let to = |dtype: DataType| [Attribute::int("to", dtype.to_i32().into())];
        input(17, "2,3,5,70")
            .param("b", weight(1, compared))
            .param("f", weight(2, others))
            .op("Cast", &["b"], "limit", to(dtype))
            .op("Cast", &["f"], "other", to(dtype))
            .op("Cast", &["x"], "cast", to(dtype))
            .op("Relu", &["cast"], "relu", [])
            .op("Min", &["limit", "relu"], "least", [])
            .op(operator, &["least", "relu"], "holds", [])
            .op("Where", &["holds", "cast", "other"], "where", [])
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
            for (compared, others) in [(WHOLE, WHOLE), (&[], WHOLE), (WHOLE, &[1, 1])] {
                let model = choice(operator, compared, others, DataType::Float);
                assert!(chooses(&model), "{operator} {compared:?} {others:?}");
                assert_same(&model, WHOLE);
            }
        }
    }

    /// The derivative of ReLU where the gradient is infinite or no number.
    #[test]
    fn what_is_not_chosen_does_not_count() {
        let model = input(17, "2,3,5,70")
            .param("zero", weight(1, &[]))
            .op("Sub", &["zero", "zero"], "0", [])
            .op("Div", &["x", "0"], "infinite", [])
            .op("Greater", &["x", "0"], "holds", [])
            .op("Where", &["holds", "x", "infinite"], "one", [])
            .op("Where", &["holds", "0", "x"], "two", [])
            .op("Add", &["one", "two"], "y", [])
            .output("y")
            .finish()
            .unwrap();
        assert!(chooses(&model));
        assert_same(&model, WHOLE);
    }

    #[test]
    fn others_are_left_to_tract() {
        let row = choice("Greater", WHOLE, &[70], DataType::Float);
        let double = choice("Greater", WHOLE, WHOLE, DataType::Double);
        for model in [row, double] {
            assert!(own_operators(&model).contains(&"Iff".to_owned()));
            assert!(!chooses(&model));
            assert_same(&model, WHOLE);
        }
    }
}
