//! Why a rule does not apply: typed, so that tests can ask for a reason and reports can word it.

use serde::{Serialize, Serializer};

/// Why a place was left alone, or why a model cannot be converted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The weight is computed while running.
    #[error("the weight is not a constant")]
    DynamicWeight,
    /// Integers, where only real numbers make sense.
    #[error("its numbers are not floating point")]
    NotFloating,
    /// The weight cannot be computed with.
    #[error("a weight is infinite or not a number")]
    NotFiniteWeight,
    /// Operands of a norm that do not belong together.
    #[error("the norm's operands do not have one element a channel each")]
    NormShape,
    /// A product of which one factor is no matrix.
    #[error("one factor of the product is a vector")]
    VectorProduct,
    /// A linear operator that is not converted.
    #[error("bcosc has no B-cos form of this operator")]
    NoBcosForm,
    /// Something to unpool is asked for, and there is nothing.
    #[error("the model has no attention pool that could be unpooled; leave --attention-unpool out")]
    NoAttentionPool,
    /// The layer behind an attention pool.
    #[error("it is the output projection of an attention pool; --bcos-projection converts it")]
    OutputProjection,
    /// Values that no layer of their own makes.
    #[error(
        "one layer makes queries, keys and values; export the attention pool with a layer for each"
    )]
    PackedValues,
    /// Something between a mean and the head that is no norm.
    #[error("\"{0}\" lies between the mean and the head, and is no norm")]
    NotNorm(String),
    /// A layer on constants, such as one that makes a position embedding.
    #[error("it does not see the input")]
    NotOfInput,
    /// A layer that attention needs linear.
    #[error("it makes the queries, keys or values of attention, which stay linear")]
    Projection,
    /// A shape that the rule needs is unknown.
    #[error("the shape of {0} is not known")]
    UnknownShape(String),
    /// Something else reads a value that the rule would change.
    #[error("\"{0}\" is used elsewhere too")]
    UsedElsewhere(String),
    /// An option says so.
    #[error("kept by {0}")]
    Kept(&'static str),
    /// The layer gives the logits.
    #[error("it is the last layer before the output")]
    Head,
    /// The layer does not give the logits.
    #[error("other layers come between it and the output")]
    NotHead,
    /// The layer's input is more than one vector an image.
    #[error("it does not see one vector an image")]
    NotOneVector,
    /// The node does not have what its operator must have.
    #[error("the node lacks an input or attribute that the operator must have")]
    Malformed,
    /// Second output of a max pool.
    #[error("its indices output is used")]
    IndicesUsed,
    /// An operator does not exist in the model's opset.
    #[error("{what} needs opset {opset}; raise it with --opset {opset}")]
    NeedsOpset {
        /// First opset that has it.
        opset: i64,
        /// What is needed.
        what: &'static str,
    },
    /// A norm that computes batch statistics.
    #[error(
        "the norm is in training mode, or its statistics are used; export the model in eval mode"
    )]
    TrainingMode,
    /// A bias that is not one number an output unit.
    #[error("its bias is not one number an output unit")]
    BiasShape,
    /// A bias that is computed while running.
    #[error("its bias is not a constant")]
    DynamicBias,
    /// Several inputs, or none, could be the image.
    #[error(
        "the model has {inputs} inputs, and not exactly one of them is an image (floating point, rank 3 or more)"
    )]
    NoImageInput {
        /// Number of inputs.
        inputs: usize,
    },
    /// An image of bytes has no gradient.
    #[error(
        "the image \"{0}\" holds bytes, and what is explained are floating-point pixels [N, C, H, W]: convert the model with \
         --input rgb, or export it without the cast"
    )]
    ByteImage(String),
    /// Raw images need to be normalised.
    #[error(
        "this input contract takes raw images: say how the model was normalised with --mean and --std, or --normalization"
    )]
    NormalizationMissing,
    /// As many means and standard deviations as channels are needed.
    #[error("the input has {channels} channels, but {given} numbers of mean or std are given")]
    NormalizationLength {
        /// Channels of the input.
        channels: u64,
        /// Numbers given.
        given: usize,
    },
    /// Means or standard deviations that nothing can be divided by.
    #[error("means must be finite, and standard deviations finite and greater than 0")]
    NormalizationValue,
    /// The graph changes the input before the first layer.
    #[error("node \"{0}\" processes the input before the first linear layer; use --input same")]
    PreprocessingInGraph(String),
    /// Nothing in the graph is linear.
    #[error("no convolution or linear layer depends on the input")]
    NoLinearLayer,
    /// The first layer is one that cannot be doubled.
    #[error(
        "the first layer is neither a convolution nor a linear layer on the channels of an image"
    )]
    FirstLayerForm,
    /// An output that is not class logits.
    #[error("the output is not logits of more than two classes")]
    NotLogits,
    /// Calibration could not look at a norm.
    #[error("the input of norm \"{0}\" could not be measured: its shape is not known")]
    NotMeasured(String),
    /// Calibration met infinities.
    #[error("the input of norm \"{0}\" is not finite on the calibration images")]
    NotFinite(String),
    /// The wanted opset is not one that the model can be raised to.
    #[error(
        "the model has opset {from}, which can be raised to at most {newest}, not changed to {to}"
    )]
    OpsetOutOfRange {
        /// The model's opset.
        from: i64,
        /// The wanted one.
        to: i64,
        /// The newest that is known.
        newest: i64,
    },
    /// An operator in a subgraph would need a rewrite.
    #[error(
        "its subgraph has {0}, which changed between the opsets; export the model with the newer opset"
    )]
    OldSubgraph(&'static str),
    /// The old form cannot be written in the new opset.
    #[error("{0}; export the model with the newer opset")]
    NoRewrite(&'static str),
    /// A batch norm that subtracts a mean.
    #[error("the norm subtracts a mean; run uncentre-norms first")]
    Centred,
    /// The operator does something; not worth a line in a report.
    #[error("needed: {0}")]
    Needed(&'static str),
    /// An output of the graph would lose its name.
    #[error("\"{0}\" is an output of the graph, and what it repeats cannot take its name")]
    OutputName(String),
    /// An operand that has to be a constant.
    #[error("\"{0}\" is not a constant")]
    NotConstant(String),
    /// A sparse tensor, which no pass reads.
    #[error("it is a sparse tensor")]
    Sparse,
    /// A constant would make the file larger.
    #[error("as a constant it would take {bytes} bytes and replace {replaces}")]
    TooLarge {
        /// Size of the constant.
        bytes: u64,
        /// Size of the parameters that would go.
        replaces: u64,
    },
    /// The interpreter could not compute a constant.
    #[error("it could not be computed: {0}")]
    NotEvaluated(String),
    /// A shape with more than one size that has to be computed.
    #[error("more than one size of the shape {0} is computed while running")]
    ShapeArithmetic(String),
    /// A list of tensors whose elements cannot be told.
    #[error("the elements of the sequence \"{0}\" are not known")]
    Sequence(String),
    /// A branch with branches or loops.
    #[error("the branch holds graphs of its own")]
    NestedGraph,
    /// A dropout that drops.
    #[error("it is in training mode; export the model in eval mode")]
    Training,
    /// Padding that its reader cannot take over.
    #[error("its padding cannot be merged: {0}")]
    Padding(&'static str),
    /// A local function that calls itself.
    #[error("the function \"{0}\" calls itself")]
    RecursiveFunction(String),
    /// Local functions nested too deep.
    #[error("functions call each other more than {0} deep")]
    FunctionsTooDeep(usize),
    /// Inlined functions would be too many operators.
    #[error("with its functions put in place the model has {0} operators")]
    FunctionsTooLarge(u64),
    /// A local function for another version of an operator set.
    #[error("the function \"{function}\" is written for opset {version}, the model has {model}")]
    FunctionOpset {
        /// The function.
        function: String,
        /// Its version.
        version: i64,
        /// The model's version.
        model: i64,
    },
    /// A rewritten message is not a graph.
    #[error("the rewritten model is not a graph: {0}")]
    NotAGraph(String),
    /// A rule of the deploy form that rests on B = 2.
    #[error("the rule holds for B = 2")]
    OnlyForB2,
    /// A rule of the deploy form: in half precision its squares would leave the range, and in double precision
    /// runtimes have no fast kernels.
    #[error("it does not compute in single precision")]
    NotSingle,
    /// A rule of the deploy form for convolutions.
    #[error("it is not the scale of a convolution")]
    NoConvolution,
    /// A bias that stands in the way.
    #[error("it adds a bias")]
    HasBias,
    /// A layer that sees more than one position, or sees groups of channels.
    #[error("it does not see all channels of one position")]
    NotPointwise,
    /// A layer whose input has at least as many channels as its output.
    #[error("its input is no narrower than its output")]
    NotNarrower,
    /// A layer whose input has fewer channels than its output.
    #[error("its input is narrower than its output, and is scaled instead")]
    Widens,
    /// A value that runtimes do not keep in blocks of channels.
    #[error("it is not an image in single precision whose channels come in blocks of 16")]
    NotBlocked,
    /// An image too large for a cache in any chunks that its channels can be cut into.
    #[error("its channels make no equal chunks of 64 or more that fit a cache")]
    WideChunks,
    /// A value that something makes or reads as a whole.
    #[error("\"{0}\" is made or read by something that needs all of its channels")]
    NotByChannel(String),
    /// An operator on the way from the input to what is explained.
    #[error("bcosc cannot go back through this operator")]
    NoDerivative,
    /// An open size that going back needs.
    #[error(
        "the size of {0} has to be known to go back; give the inputs shapes with --input-shapes"
    )]
    OpenSize(String),
    /// An output that does not depend linearly on the input.
    #[error(
        "\"{output}\" is no linear map of the input, whatever is held fixed; at fault: {broken_by}"
    )]
    NotLinear {
        /// The output.
        output: String,
        /// The nodes that break it.
        broken_by: String,
    },
    /// An output that has no class to explain.
    #[error("the output \"{output}\" is {found}, and one vector an image can be explained; {why}")]
    NotVectors {
        /// The output.
        output: String,
        /// Its type.
        found: String,
        /// What is the matter, and what to do.
        why: NoVectors,
    },
    /// An input whose channels cannot be told.
    #[error(
        "it cannot be told which axis of \"{0}\" holds channels, over which contributions are summed; export the model with images \
         [N, C, H, W]"
    )]
    ChannelAxis(String),
    /// Something that only pays where several layers have it in common.
    #[error("no other layer shares it")]
    NotShared,
}

/// Why an output is not one vector an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVectors {
    /// It is a class index, for example.
    #[error("none of the outputs is floating point: export the logits too")]
    NotFloating,
    /// The axis of the batch was squeezed away, or summed over.
    #[error("where it holds the scores of one image, fix the batch to 1 with --input-shapes")]
    NoBatch,
    /// Another output may be one.
    #[error("choose one that is with --output")]
    Other,
    /// Sizes are open.
    #[error("give the inputs shapes with --input-shapes, so that its sizes are known")]
    Open,
    /// Every image has a map.
    #[error("export the model with an output that is")]
    Map,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
