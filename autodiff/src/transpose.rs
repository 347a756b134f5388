//! Transposes: the backward rules of operators that are linear in the differentiated operands.
//!
//! All uses of reverse mode share them: other operands, such as a weight, a divisor or indices, are read from the
//! forward pass.

pub(crate) mod arithmetic;
mod blocks;
pub(crate) mod convolution;
mod einsum;
mod grid_sample;
mod indexing;
mod matmul;
mod padding;
mod pooling;
mod rectifiers;
mod resize;
mod selection;
mod sequences;
mod slices;
mod structural;
mod triangular;
pub(crate) mod window;

use crate::rules::Table;

/// Linear maps.
pub(crate) const RULES: Table = &[
    ("Add", arithmetic::add),
    ("AveragePool", pooling::average),
    ("Cast", structural::cast),
    ("CastLike", structural::cast),
    ("Compress", slices::compress),
    ("Concat", structural::concat),
    ("Conv", convolution::conv),
    ("ConvTranspose", convolution::conv_transpose),
    ("CumSum", triangular::running_sum),
    ("DepthToSpace", blocks::depth_to_space),
    ("Div", arithmetic::div),
    ("Dropout", structural::dropout),
    ("Einsum", einsum::einsum),
    ("Expand", structural::expand),
    ("Flatten", structural::view),
    ("Gather", slices::gather),
    ("GatherElements", indexing::gather_elements),
    ("GatherND", indexing::gather_nd),
    ("Gemm", matmul::gemm),
    ("GlobalAveragePool", pooling::global_average),
    ("GlobalMaxPool", selection::global_max),
    ("GridSample", grid_sample::grid_sample),
    ("Identity", structural::identity),
    ("LeakyRelu", rectifiers::leaky_relu),
    ("MatMul", matmul::matmul),
    ("Max", selection::largest_operand),
    ("MaxPool", pooling::max),
    ("Mean", arithmetic::mean),
    ("Min", selection::largest_operand),
    ("Mul", arithmetic::mul),
    ("Neg", arithmetic::neg),
    ("PRelu", rectifiers::prelu),
    ("Pad", padding::pad),
    ("ReduceMax", selection::reduce_winner),
    ("ReduceMean", arithmetic::reduce_mean),
    ("ReduceMin", selection::reduce_winner),
    ("ReduceSum", arithmetic::reduce_sum),
    ("Relu", rectifiers::relu),
    ("Reshape", structural::view),
    ("Resize", resize::resize),
    ("ReverseSequence", sequences::reverse_sequence),
    ("ScatterElements", indexing::scatter_elements),
    ("ScatterND", indexing::scatter_nd),
    ("Slice", slices::slice),
    ("SpaceToDepth", blocks::space_to_depth),
    ("Split", structural::split),
    ("Squeeze", structural::view),
    ("Sub", arithmetic::sub),
    ("Sum", arithmetic::add),
    ("Tile", blocks::tile),
    ("TopK", indexing::top),
    ("Transpose", structural::transpose),
    ("Trilu", triangular::triangle),
    ("Unsqueeze", structural::view),
    ("Upsample", resize::resize),
    ("Where", arithmetic::choice),
];
