//! The linearity rule of each operator.

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Conv;
use bcosc_ir::{DataType, Graph, NodeId, Op};

use crate::analysis::scalars::{bounds, scalar};
use crate::dialect;

/// How the output of an operator depends on its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Linear in operand 0; the others are parameters (shapes, indices, sizes).
    Linear,
    /// Jointly linear in all operands: sums and concatenations.
    Sum,
    /// Operand 0 selects elements of the others.
    Choice,
    /// Each output element is one of the elements of operand 0.
    Winner,
    /// Each output element is one of the operands' elements.
    WinnerOfAll,
    /// Bilinear in operands 0 and 1, elementwise.
    Scaling,
    /// Bilinear in operands 0 and 1; operand 2, if present, is added.
    Product,
    /// Operand 0 divided by operand 1.
    Quotient,
    /// `f(x) = gate(x) * x`, elementwise in operand 0.
    Gate {
        /// Whether the gate is smooth, so that the output can be a factor itself.
        smooth: bool,
    },
    /// Operand 0, centred or scaled by its statistics.
    Norm {
        /// Slots of operands that are added or subtracted.
        added: &'static [u32],
    },
    /// `softmax(q k^T) v` of operands 0, 1 and 2.
    Attention,
    /// Operand 0 with operand 2 written to the indices in operand 1.
    Written,
    /// Depends on shapes and types only.
    ShapeOnly,
    /// Any other operator: not linear, but it can be a factor of another value.
    Factor,
}

use Rule::*;

const GATE: Rule = Gate { smooth: false };
const SMOOTH_GATE: Rule = Gate { smooth: true };
const SCALED: Rule = Norm { added: &[] };
const SHIFTED: Rule = Norm { added: &[2] };

/// Standard operators by name, sorted; one without a row is a [`Factor`].
const RULES: &[(&str, Rule)] = &[
    ("Add", Sum),
    ("Attention", Attention),
    ("AveragePool", Linear),
    ("BatchNormalization", Norm { added: &[2, 3] }),
    ("Cast", Linear),
    ("CastLike", Linear),
    ("Celu", GATE),
    ("Clip", SMOOTH_GATE),
    ("Compress", Linear),
    ("Concat", Sum),
    ("ConstantOfShape", ShapeOnly),
    ("Conv", Product),
    ("ConvTranspose", Product),
    ("CumSum", Linear),
    ("DepthToSpace", Linear),
    ("Div", Quotient),
    ("Dropout", Linear),
    ("Einsum", Product),
    ("Elu", GATE),
    ("Expand", Linear),
    ("EyeLike", ShapeOnly),
    ("Flatten", Linear),
    ("Gather", Linear),
    ("GatherElements", Linear),
    ("GatherND", Linear),
    ("Gelu", SMOOTH_GATE),
    ("Gemm", Product),
    ("GlobalAveragePool", Linear),
    ("GlobalMaxPool", Winner),
    ("GridSample", Linear),
    ("GroupNormalization", SHIFTED),
    ("HardSwish", SMOOTH_GATE),
    ("Identity", Linear),
    ("InstanceNormalization", SHIFTED),
    ("LRN", SCALED),
    ("LayerNormalization", SHIFTED),
    ("LeakyRelu", GATE),
    ("LpNormalization", SCALED),
    ("MatMul", Product),
    ("Max", WinnerOfAll),
    ("MaxPool", Winner),
    ("Mean", Sum),
    ("MeanVarianceNormalization", SCALED),
    ("Min", WinnerOfAll),
    ("Mish", SMOOTH_GATE),
    ("Mul", Scaling),
    ("Neg", Linear),
    ("PRelu", GATE),
    ("Pad", Linear),
    ("Pow", GATE),
    ("RMSNormalization", SCALED),
    ("ReduceMax", Winner),
    ("ReduceMean", Linear),
    ("ReduceMin", Winner),
    ("ReduceSum", Linear),
    ("Relu", GATE),
    ("Reshape", Linear),
    ("Resize", Linear),
    ("ReverseSequence", Linear),
    ("ScatterElements", Written),
    ("ScatterND", Written),
    ("Selu", GATE),
    ("Shape", ShapeOnly),
    ("Shrink", GATE),
    ("Size", ShapeOnly),
    ("Slice", Linear),
    ("Softsign", GATE),
    ("SpaceToDepth", Linear),
    ("Split", Linear),
    ("Squeeze", Linear),
    ("Sub", Sum),
    ("Sum", Sum),
    ("Swish", SMOOTH_GATE),
    ("Tanh", SMOOTH_GATE),
    ("ThresholdedRelu", GATE),
    ("Tile", Linear),
    ("TopK", Winner),
    ("Transpose", Linear),
    ("Trilu", Linear),
    ("Unsqueeze", Linear),
    ("Upsample", Linear),
    ("Where", Choice),
];

/// The rule of a node.
pub fn of(graph: &Graph, node: NodeId) -> Rule {
    let Some(op) = graph.op(node) else {
        return Factor;
    };
    if op.domain() == dialect::DOMAIN {
        return match op.op_type() {
            "Scale" => SCALED,
            _ => Factor,
        };
    }
    if !op.domain().is_empty() {
        return Factor;
    }
    match op.op_type() {
        _ if op.has(Trait::Cast) && !yields_floats(graph, node, op) => Factor,
        // A scale per channel is not a layer.
        "Conv" if scales_channels(graph, node) => Linear,
        "Clip" if !keeps_zero(graph, node) => Factor,
        // The absolute value, which scales.
        "LeakyRelu" if op.get("alpha") == Some(-1.0_f32) => Factor,
        "ScatterElements" | "ScatterND" if !overwrites_or_adds(op) => Factor,
        "Pow" if !is_power(graph, node) => Factor,
        name => match RULES.binary_search_by_key(&name, |(name, _)| name) {
            Ok(index) => RULES[index].1,
            Err(_) => Factor,
        },
    }
}

/// The standard operators with a rule, in order. The constants or attributes of a node can change the
/// rule.
pub fn operators() -> impl Iterator<Item = (&'static str, Rule)> {
    RULES.iter().copied()
}

fn yields_floats(graph: &Graph, node: NodeId, op: &Op) -> bool {
    let found = match op.op_type() {
        "Cast" => op.get("to").and_then(DataType::from_i32),
        _ => graph
            .input(node, 1)
            .and_then(|like| graph.value_type(like))
            .map(|t| t.dtype),
    };
    found.is_some_and(DataType::is_float)
}

/// Whether a `Clip` maps 0 to 0, so that it is a gate. Bounds are attributes up to opset 10.
fn keeps_zero(graph: &Graph, node: NodeId) -> bool {
    matches!(bounds(graph, node), Some((low, high)) if low <= 0.0 && high >= 0.0)
}

/// Whether a convolution has one weight per channel and no bias.
fn scales_channels(graph: &Graph, node: NodeId) -> bool {
    Conv::of(graph, node).is_some_and(|conv| {
        let one_to_one = conv.group == conv.in_channels() && conv.group == conv.out_channels();
        let fixed = graph.constant(conv.w).is_some() && conv.bias.is_none();
        one_to_one && fixed && conv.window.is_pointwise()
    })
}

/// Whether a `Pow` is x times a power of x.
fn is_power(graph: &Graph, node: NodeId) -> bool {
    let exponent = graph.input(node, 1).and_then(|v| scalar(graph, v));
    exponent.is_some_and(|e| e >= 1.0 && e.fract() == 0.0)
}

/// Whether a `Scatter` overwrites or adds elements.
fn overwrites_or_adds(op: &Op) -> bool {
    matches!(op.get("reduction"), None | Some("none" | "add"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        for pair in RULES.windows(2) {
            assert!(
                pair[0].0 < pair[1].0,
                "not in alphabetical order: {}, {}",
                pair[0].0,
                pair[1].0
            );
        }
    }
}
