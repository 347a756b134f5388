//! Traits of operators beyond their schemas.

/// Something that holds for an operator in all of its uses, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trait {
    /// Outputs the elements of input 0 in the same order, in another shape.
    View,
    /// Outputs input 0 unchanged (`Dropout`: in inference mode).
    Copy,
    /// Outputs the elements of input 0 in the same shape, as another type.
    Cast,
    /// Moves elements: each output element is an element of input 0 (of any input: `Concat`) or a fixed filler, and
    /// which one does not depend on the elements that are moved, only on attributes, shapes, and the other inputs.
    Structural,
    /// Reads the shape and the type of its input and none of its elements.
    ShapeOnly,
    /// Makes each output element of the elements at the same place of its inputs, which are broadcast.
    Elementwise,
    /// An [`Trait::Elementwise`] sum, product, quotient, power or root: what scales and angles are computed with.
    Arithmetic,
    /// Gives the same result with its inputs in another order.
    Commutative,
    /// Divides by a measure of how large its input is, so that the scale of the input does not matter. A
    /// `BatchNormalization` has measured before.
    Norm,
    /// A [`Trait::Norm`] of each vector along the last axes, or along those from `axis` on, with one factor an element.
    VectorNorm,
    /// Multiplies its input by a matrix, filters, or the like, which are usually constant: a layer.
    Weights,
    /// Gives another result each time.
    Random,
    /// Reads or writes numbers that stand for others by a scale and a zero point.
    Quantised,
}

impl Trait {
    /// Whether an operator of the standard domain has the trait.
    pub(super) fn holds_for(self, name: &str) -> bool {
        let found = TRAITS.binary_search_by_key(&name, |(name, _)| name);
        found.is_ok_and(|index| TRAITS[index].1.contains(&self))
    }
}

use Trait::*;

/// Operators that have traits, by name.
const TRAITS: &[(&str, &[Trait])] = &[
    ("Abs", &[Elementwise]),
    ("Acos", &[Elementwise]),
    ("Acosh", &[Elementwise]),
    ("Add", &[Arithmetic, Commutative, Elementwise]),
    ("And", &[Commutative, Elementwise]),
    ("Asin", &[Elementwise]),
    ("Asinh", &[Elementwise]),
    ("Atan", &[Elementwise]),
    ("Atanh", &[Elementwise]),
    ("BatchNormalization", &[Norm]),
    ("Bernoulli", &[Random]),
    ("BitCast", &[Elementwise]),
    ("BitShift", &[Elementwise]),
    ("BitwiseAnd", &[Commutative, Elementwise]),
    ("BitwiseNot", &[Elementwise]),
    ("BitwiseOr", &[Commutative, Elementwise]),
    ("BitwiseXor", &[Commutative, Elementwise]),
    ("Cast", &[Cast, Elementwise]),
    ("CastLike", &[Cast, Elementwise]),
    ("CausalConvWithState", &[Weights]),
    ("Ceil", &[Elementwise]),
    ("Celu", &[Elementwise]),
    ("CenterCropPad", &[Structural]),
    ("Clip", &[Elementwise]),
    ("Compress", &[Structural]),
    ("Concat", &[Structural]),
    ("Conv", &[Weights]),
    ("ConvInteger", &[Quantised, Weights]),
    ("ConvTranspose", &[Weights]),
    ("Cos", &[Elementwise]),
    ("Cosh", &[Elementwise]),
    ("DeformConv", &[Weights]),
    ("DepthToSpace", &[Structural]),
    ("DequantizeLinear", &[Quantised]),
    ("Div", &[Arithmetic, Elementwise]),
    ("Dropout", &[Copy, Structural]),
    ("DynamicQuantizeLinear", &[Quantised]),
    ("Einsum", &[Weights]),
    ("Elu", &[Elementwise]),
    ("Equal", &[Commutative, Elementwise]),
    ("Erf", &[Elementwise]),
    ("Exp", &[Elementwise]),
    ("Expand", &[Structural]),
    ("EyeLike", &[ShapeOnly]),
    ("Flatten", &[Structural, View]),
    ("Floor", &[Elementwise]),
    ("GRU", &[Weights]),
    ("Gather", &[Structural]),
    ("GatherElements", &[Structural]),
    ("GatherND", &[Structural]),
    ("Gelu", &[Elementwise]),
    ("Gemm", &[Weights]),
    ("Greater", &[Elementwise]),
    ("GreaterOrEqual", &[Elementwise]),
    ("GroupNormalization", &[Norm]),
    ("HardSigmoid", &[Elementwise]),
    ("HardSwish", &[Elementwise]),
    ("Identity", &[Copy, Structural]),
    ("InstanceNormalization", &[Norm]),
    ("IsInf", &[Elementwise]),
    ("IsNaN", &[Elementwise]),
    ("LSTM", &[Weights]),
    ("LayerNormalization", &[Norm, VectorNorm]),
    ("LeakyRelu", &[Elementwise]),
    ("Less", &[Elementwise]),
    ("LessOrEqual", &[Elementwise]),
    ("Log", &[Elementwise]),
    ("LpNormalization", &[Norm]),
    ("MatMul", &[Weights]),
    ("MatMulInteger", &[Quantised, Weights]),
    ("Max", &[Commutative, Elementwise]),
    ("Mean", &[Commutative, Elementwise]),
    ("MeanVarianceNormalization", &[Norm]),
    ("Min", &[Commutative, Elementwise]),
    ("Mish", &[Elementwise]),
    ("Mod", &[Elementwise]),
    ("Mul", &[Arithmetic, Commutative, Elementwise]),
    ("Multinomial", &[Random]),
    ("Neg", &[Arithmetic, Elementwise]),
    ("Not", &[Elementwise]),
    ("Or", &[Commutative, Elementwise]),
    ("PRelu", &[Elementwise]),
    ("Pad", &[Structural]),
    ("Pow", &[Arithmetic, Elementwise]),
    ("QLinearConv", &[Quantised, Weights]),
    ("QLinearMatMul", &[Quantised, Weights]),
    ("QuantizeLinear", &[Quantised]),
    ("RMSNormalization", &[Norm, VectorNorm]),
    ("RNN", &[Weights]),
    ("RandomNormal", &[Random]),
    ("RandomNormalLike", &[Random, ShapeOnly]),
    ("RandomUniform", &[Random]),
    ("RandomUniformLike", &[Random, ShapeOnly]),
    ("Reciprocal", &[Arithmetic, Elementwise]),
    ("Relu", &[Elementwise]),
    ("Reshape", &[Structural, View]),
    ("ReverseSequence", &[Structural]),
    ("Round", &[Elementwise]),
    ("Selu", &[Elementwise]),
    ("Shape", &[ShapeOnly]),
    ("Shrink", &[Elementwise]),
    ("Sigmoid", &[Elementwise]),
    ("Sign", &[Elementwise]),
    ("Sin", &[Elementwise]),
    ("Sinh", &[Elementwise]),
    ("Size", &[ShapeOnly]),
    ("Slice", &[Structural]),
    ("Softplus", &[Elementwise]),
    ("Softsign", &[Elementwise]),
    ("SpaceToDepth", &[Structural]),
    ("Split", &[Structural]),
    ("Sqrt", &[Arithmetic, Elementwise]),
    ("Squeeze", &[Structural, View]),
    ("Sub", &[Arithmetic, Elementwise]),
    ("Sum", &[Commutative, Elementwise]),
    ("SwiGLU", &[Elementwise]),
    ("Swish", &[Elementwise]),
    ("Tan", &[Elementwise]),
    ("Tanh", &[Elementwise]),
    ("ThresholdedRelu", &[Elementwise]),
    ("Tile", &[Structural]),
    ("Transpose", &[Structural]),
    ("Trilu", &[Structural]),
    ("Unsqueeze", &[Structural, View]),
    ("Where", &[Elementwise]),
    ("Xor", &[Commutative, Elementwise]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn every_row_is_of_an_operator_and_can_be_found() {
        for pair in TRAITS.windows(2) {
            assert!(
                pair[0].0 < pair[1].0,
                "not in alphabetical order: {}, {}",
                pair[0].0,
                pair[1].0
            );
        }
        for (name, traits) in TRAITS {
            assert!(
                ops::find(name).is_some(),
                "{name} is not a standard operator"
            );
            assert!(!traits.is_empty(), "{name} has no trait");
        }
    }

    #[test]
    fn traits_agree_with_one_another_and_with_the_schemas() {
        for operator in ops::all() {
            let has = |wanted: Trait| wanted.holds_for(operator.name);
            let name = operator.name;
            let schema = operator.newest();
            let inputs: Vec<ops::Formal> = schema.inputs().collect();
            if has(View) || has(Copy) {
                assert!(has(Structural), "{name} moves elements");
            }
            if has(VectorNorm) {
                assert!(has(Norm) && schema.attribute("axis").is_some(), "{name}");
            }
            if has(Arithmetic) {
                assert!(has(Elementwise), "{name} treats each element by itself");
            }
            if has(Cast) {
                assert!(has(Elementwise), "{name} treats each element by itself");
            }
            if has(Structural) {
                assert!(!has(Elementwise) && !has(Weights) && !has(Norm), "{name}");
            }
            if has(Elementwise) {
                assert_eq!(schema.outputs().count(), 1, "{name} has one output");
            }
            if has(Commutative) {
                let variadic = inputs.iter().any(|i| i.arity == ops::Arity::Variadic);
                assert!(
                    has(Elementwise) && (inputs.len() == 2 || variadic),
                    "{name}"
                );
            }
            if has(ShapeOnly) {
                assert_eq!(inputs.len(), 1, "{name} reads one shape");
            }
            if has(Random) {
                assert!(schema.attribute("seed").is_some(), "{name} has a seed");
            }
        }
    }
}
