//! Which rule an operator has: a table.

use bcosc_ir::Op;

use super::step::Rule;
use super::{
    algebra, attention, gates, matmul, moves, norms, order, pick, pool, resize, scatter, shapes,
    windows,
};

/// Standard operators by name, sorted.
const RULES: &[(&str, Rule)] = &[
    ("Add", algebra::add),
    ("Attention", attention::attention),
    ("AveragePool", pool::average),
    ("BatchNormalization", norms::batch),
    ("Cast", moves::cast),
    ("CastLike", moves::cast),
    ("Celu", gates::celu),
    ("Clip", gates::bounded),
    ("Concat", moves::concat),
    ("Conv", windows::conv),
    ("ConvTranspose", windows::conv_transpose),
    ("CumSum", order::running_sum),
    ("DepthToSpace", shapes::depth_to_space),
    ("Div", algebra::div),
    ("Dropout", moves::identity),
    ("Einsum", matmul::einsum),
    ("Elu", gates::elu),
    ("Expand", moves::expand),
    ("Flatten", moves::view),
    ("Gather", pick::gather),
    ("GatherElements", scatter::gather_elements),
    ("GatherND", scatter::gather_nd),
    ("Gelu", gates::gelu),
    ("Gemm", matmul::gemm),
    ("GlobalAveragePool", pool::global_average),
    ("GlobalMaxPool", pool::global_max),
    ("GroupNormalization", norms::group),
    ("HardSwish", gates::hard_swish),
    ("Identity", moves::identity),
    ("InstanceNormalization", norms::instance),
    ("LRN", gates::scaled_by_neighbours),
    ("LayerNormalization", norms::layer),
    ("LeakyRelu", gates::leaky_relu),
    ("LpNormalization", norms::length),
    ("MatMul", matmul::matmul),
    ("Max", pool::largest_operand),
    ("MaxPool", pool::max),
    ("Mean", algebra::mean),
    ("MeanVarianceNormalization", norms::mean_variance),
    ("Min", pool::largest_operand),
    ("Mish", gates::mish),
    ("Mul", algebra::mul),
    ("Neg", algebra::neg),
    ("PRelu", gates::prelu),
    ("Pad", moves::pad),
    ("Pow", gates::power),
    ("RMSNormalization", norms::rms),
    ("ReduceMax", pool::reduce_winner),
    ("ReduceMean", algebra::reduce_mean),
    ("ReduceMin", pool::reduce_winner),
    ("ReduceSum", algebra::reduce_sum),
    ("Relu", gates::relu),
    ("Reshape", moves::view),
    ("Resize", resize::resize),
    ("ScatterElements", scatter::scatter_elements),
    ("ScatterND", scatter::scatter_nd),
    ("Selu", gates::selu),
    ("Shrink", gates::vanishing),
    ("Slice", pick::slice),
    ("Softsign", gates::softsign),
    ("SpaceToDepth", shapes::space_to_depth),
    ("Split", moves::split),
    ("Squeeze", moves::view),
    ("Sub", algebra::sub),
    ("Sum", algebra::add),
    ("Swish", gates::swish),
    ("Tanh", gates::bounded),
    ("ThresholdedRelu", gates::vanishing),
    ("Tile", shapes::tile),
    ("TopK", scatter::top),
    ("Transpose", moves::transpose),
    ("Trilu", order::triangle),
    ("Unsqueeze", moves::view),
    ("Upsample", resize::resize),
    ("Where", algebra::choice),
];

/// The rule of an operator.
pub(super) fn of(op: &Op) -> Option<Rule> {
    if !op.domain().is_empty() {
        return None;
    }
    let found = RULES.binary_search_by_key(&op.op_type(), |(name, _)| name);
    found.ok().map(|index| RULES[index].1)
}

/// All operators that have a rule.
#[cfg(test)]
pub(super) fn operators() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        assert!(RULES.is_sorted_by_key(|(name, _)| name));
    }
}
