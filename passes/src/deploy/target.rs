//! The target of `--deploy`: ONNX Runtime on the CPU.

/// What the rules of the deploy form assume of their target: ONNX Runtime's CPU execution provider, with its graph
/// optimisations on, in single precision.
///
/// On processors with AVX-512 or AVX2, ONNX Runtime keeps images between convolutions in blocks of channels (NCHWc):
/// `[N, C/16, H, W, 16]` instead of `[N, C, H, W]`. Its optimiser (`nchwc_transformer.cc`) decides operator by operator;
/// where one has no kernel for blocks, it reorders the image before and, if need be, after. A form that is fast keeps
/// out of such reorders and goes through memory rarely.
///
/// The figures marked *tuned* are where one form overtakes another; other processors may have others. They change how
/// fast a network is, never what it computes.
#[derive(Clone, Copy, Debug)]
pub struct OnnxRuntimeCpu;

impl OnnxRuntimeCpu {
    /// Channels of a block: what `MlasNchwcGetBlockSize` gives with AVX-512. It is 8 with AVX2, and what fills
    /// blocks of 16 fills those as well.
    pub const BLOCK: u64 = 16;

    /// Activations that work on blocks as they are.
    pub const BLOCKED_ACTIVATIONS: &[&str] = &["Relu", "Sigmoid", "Tanh", "HardSigmoid"];

    /// Operators that stay in blocks behind a depthwise convolution, into which they are fused
    /// (`conv_activation_fusion.cc`; `Abs` is written as a `LeakyRelu`). A norm becomes such a convolution itself.
    pub const FUSED_ACTIVATIONS: &[&str] = &["Abs", "Clip", "LeakyRelu", "BatchNormalization"];

    /// Pools that have a kernel for blocks.
    pub const BLOCKED_POOLS: &[&str] = &["AveragePool", "MaxPool", "GlobalAveragePool"];

    /// Arithmetic on two images of one shape that has a kernel for blocks.
    pub const BLOCKED_ARITHMETIC: &[&str] = &["Add", "Mul"];

    /// The opset from which on average pools have dilations, and a slower kernel (`AveragePoolV19`).
    pub const SLOW_AVERAGE_POOL_OPSET: i64 = 19;

    /// The largest window, in cells, that a convolution with ones adds up as fast as an average pool and the
    /// addition of epsilon behind it (tuned).
    pub const SMALL_WINDOW: i64 = 9;

    /// The most elements for which one `Pow` costs less than `Sqrt` and `Reciprocal`, which are vectorised but are an
    /// operator each (tuned).
    pub const FEW_ELEMENTS: u64 = 28 * 28;
}
