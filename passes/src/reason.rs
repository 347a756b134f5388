//! Typed reasons why a rule does not apply, for tests and reports.

use serde::{Serialize, Serializer};

/// Why a node was skipped, or why a model cannot be converted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The weight is computed at run time.
    #[error("the weight is not a constant")]
    DynamicWeight,
    /// Integers where floating point is required.
    #[error("its element type is not floating point")]
    NotFloating,
    /// The weight has infinite or NaN elements.
    #[error("the weight has infinite or NaN elements")]
    NotFiniteWeight,
    /// Operands of a norm with inconsistent sizes.
    #[error("the operands of the norm do not have one element per channel")]
    NormShape,
    /// No parameter is left to train.
    #[error("nothing is trained: the loss depends on no parameter that is not frozen")]
    NothingTrained,
    /// Something about B, in a model without B-cos layers.
    #[error(
        "there are no B-cos layers whose B could change (the model has B = 1, or is in its deploy form)"
    )]
    NoBcosLayers,
    /// A loss that compares with a teacher, without one.
    #[error("this loss compares with a teacher, and none is given")]
    NoTeacher,
    /// A teacher for something else.
    #[error("the teacher has {outputs} outputs per image, and the model has {expected}")]
    OtherTeacher {
        /// Outputs of the teacher.
        outputs: u64,
        /// Outputs of the model.
        expected: u64,
    },
    /// A place in the original that the converted model does not have.
    #[error("no value of the model stands for \"{0}\" of its original")]
    NoPlace(String),
    /// Values at one place that cannot be compared.
    #[error("at \"{place}\" the model has {}, and its original {}", types[0], types[1])]
    OtherShape {
        /// The place, by the name of the value in the original.
        place: String,
        /// The types of the model's value, and of the original's.
        types: Box<[String; 2]>,
    },
    /// No value stands for one of the original.
    #[error("the model does not say which of its values stand for values of the original")]
    NoPlaces,
    /// A matrix product with a vector.
    #[error("one operand of the product is a vector")]
    VectorProduct,
    /// A linear operator that is not converted.
    #[error("no B-cos form for this operator")]
    NoBcosForm,
    /// `--attention-unpool` on a model without attention pool.
    #[error("the model has no attention pool; remove --attention-unpool")]
    NoAttentionPool,
    /// The output projection of an attention pool.
    #[error("output projection of an attention pool; use --bcos-projection to convert it")]
    OutputProjection,
    /// Values that are not computed by a layer of their own.
    #[error(
        "one layer computes queries, keys and values; export the attention pool with separate layers"
    )]
    PackedValues,
    /// An operator between the mean and the head that is not part of a norm.
    #[error("\"{0}\" is between the mean and the head, but is not a norm")]
    NotNorm(String),
    /// A layer on constants, such as a position embedding.
    #[error("it does not depend on the input")]
    NotOfInput,
    /// A projection of attention.
    #[error("it computes queries, keys or values of attention, which stay linear")]
    Projection,
    /// A shape that the rule needs is unknown.
    #[error("the shape of {0} is not known")]
    UnknownShape(String),
    /// A value that the rule would change has other consumers.
    #[error("\"{0}\" has other consumers")]
    UsedElsewhere(String),
    /// Kept because of an option.
    #[error("kept by {0}")]
    Kept(&'static str),
    /// The last layer.
    #[error("it is the last layer before the output")]
    Head,
    /// Not the last layer.
    #[error("there are other layers between it and the output")]
    NotHead,
    /// The input of the layer is more than one vector per image.
    #[error("its input is not one vector per image")]
    NotOneVector,
    /// A required input or attribute is missing.
    #[error("a required input or attribute is missing")]
    Malformed,
    /// Second output of a max pool.
    #[error("its output `Indices` is used")]
    IndicesUsed,
    /// An operator does not exist in the model's opset.
    #[error("{what} requires opset {opset}; use --opset {opset}")]
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
    /// A bias without one element per output unit.
    #[error("its bias does not have one element per output unit")]
    BiasShape,
    /// A bias that is computed at run time.
    #[error("its bias is not a constant")]
    DynamicBias,
    /// Several inputs, or none, could be the image.
    #[error(
        "the model has {inputs} inputs; exactly one must be an image (floating point, rank 3 or more)"
    )]
    NoImageInput {
        /// Number of inputs.
        inputs: usize,
    },
    /// An image of bytes has no gradient.
    #[error(
        "the image \"{0}\" holds bytes, but only floating-point pixels [N, C, H, W] can be explained; convert the model with \
         --input rgb, or export it without the cast"
    )]
    ByteImage(String),
    /// A pattern of layers that cannot be read.
    #[error("the pattern `{0}` for layers is invalid")]
    NoPattern(String),
    /// A pattern that matches no B-cos layer.
    #[error("no B-cos layer has a name like `{pattern}`; there are: {names}")]
    NoSuchLayer {
        /// The pattern.
        pattern: String,
        /// Some names of layers.
        names: String,
    },
    /// Layers with an exponent, in a model that has none.
    #[error("B of the model is 1, so that of its layers cannot grow with the input `b`")]
    NoGrowth,
    /// [x, -x] adds up to 0.
    #[error(
        "biases can only be carried by [x, 1-x], which adds up to a constant: use --input add-inverse or rgb"
    )]
    NoConstant,
    /// The shape or the batch axis of a value is not known.
    #[error("its bias stays a constant: no form of x + (1-x) is known to fit its shape")]
    NotCarried,
    /// Raw images need to be normalised.
    #[error(
        "this input format takes raw images: give the normalisation of the model with --normalization, or --mean and --std"
    )]
    NormalizationMissing,
    /// Means or standard deviations that do not match the channels.
    #[error("the input has {channels} channels, but the mean or std has {given} values")]
    NormalizationLength {
        /// Channels of the input.
        channels: u64,
        /// Numbers given.
        given: usize,
    },
    /// Invalid means or standard deviations.
    #[error("means must be finite; standard deviations must be finite and positive")]
    NormalizationValue,
    /// An operator processes the input before the first layer.
    #[error("node \"{0}\" processes the input before the first linear layer; use --input same")]
    PreprocessingInGraph(String),
    /// The graph has no linear layer.
    #[error("no convolution or linear layer depends on the input")]
    NoLinearLayer,
    /// The input channels of the first layer cannot be doubled.
    #[error(
        "the first layer must be a convolution or a linear layer over the channels of an image"
    )]
    FirstLayerForm,
    /// An output that is not class logits.
    #[error("the output is not a vector of logits for more than two classes")]
    NotLogits,
    /// Calibration cannot measure a norm.
    #[error("the input of norm \"{0}\" cannot be measured: its shape is not known")]
    NotMeasured(String),
    /// Calibration found infinite or NaN values.
    #[error("the input of norm \"{0}\" is not finite on the calibration images")]
    NotFinite(String),
    /// The model cannot be upgraded to the requested opset.
    #[error("cannot change opset {from} to {to}: supported are opsets {from} to {newest}")]
    OpsetOutOfRange {
        /// The model's opset.
        from: i64,
        /// The wanted one.
        to: i64,
        /// The newest supported opset.
        newest: i64,
    },
    /// An operator in a subgraph would need a rewrite.
    #[error(
        "its subgraph contains {0}, which changed between these opsets; export the model with the newer opset"
    )]
    OldSubgraph(&'static str),
    /// The old form cannot be written in the new opset.
    #[error("{0}; export the model with the newer opset")]
    NoRewrite(&'static str),
    /// A batch norm that subtracts a mean.
    #[error("the norm subtracts a mean; run uncentre-norms first")]
    Centred,
    /// The operator has an effect; not reported.
    #[error("needed: {0}")]
    Needed(&'static str),
    /// An output of the graph whose name must be kept.
    #[error("\"{0}\" is an output of the graph whose name cannot be kept")]
    OutputName(String),
    /// An operand that must be a constant.
    #[error("\"{0}\" is not a constant")]
    NotConstant(String),
    /// A sparse tensor (not supported).
    #[error("it is a sparse tensor")]
    Sparse,
    /// A constant would make the file larger.
    #[error("the constant would take {bytes} bytes and replace only {replaces}")]
    TooLarge {
        /// Size of the constant.
        bytes: u64,
        /// Size of the parameters that would go.
        replaces: u64,
    },
    /// The interpreter could not compute a constant.
    #[error("it cannot be evaluated: {0}")]
    NotEvaluated(String),
    /// A shape with more than one dynamic dimension.
    #[error("more than one dimension of shape {0} is dynamic")]
    ShapeArithmetic(String),
    /// A sequence with unknown elements.
    #[error("the elements of the sequence \"{0}\" are not known")]
    Sequence(String),
    /// A branch with nested graphs.
    #[error("the branch contains nested graphs")]
    NestedGraph,
    /// A dropout in training mode.
    #[error("it is in training mode; export the model in eval mode")]
    Training,
    /// Padding that cannot be merged into its consumer.
    #[error("its padding cannot be merged: {0}")]
    Padding(&'static str),
    /// A local function that calls itself.
    #[error("the function \"{0}\" calls itself")]
    RecursiveFunction(String),
    /// Local functions nested too deep.
    #[error("function calls are nested more than {0} deep")]
    FunctionsTooDeep(usize),
    /// Inlined functions would be too many operators.
    #[error("the model would have {0} operators after inlining functions")]
    FunctionsTooLarge(u64),
    /// A local function for another version of an operator set.
    #[error("the function \"{function}\" uses opset {version}, but the model uses {model}")]
    FunctionOpset {
        /// The function.
        function: String,
        /// Its version.
        version: i64,
        /// The model's version.
        model: i64,
    },
    /// A rewritten model is invalid.
    #[error("the rewritten model is invalid: {0}")]
    NotAGraph(String),
    /// A deploy rule that requires B = 2.
    #[error("the rule requires B = 2")]
    OnlyForB2,
    /// A deploy rule that requires single precision: in half precision squares overflow, and in double precision
    /// runtimes have no fast kernels.
    #[error("it does not compute in single precision")]
    NotSingle,
    /// A deploy rule for convolutions.
    #[error("it does not scale a convolution")]
    NoConvolution,
    /// A bias prevents the rule.
    #[error("it adds a bias")]
    HasBias,
    /// A layer with a window larger than 1, or with groups.
    #[error("it is not a pointwise layer over all channels")]
    NotPointwise,
    /// A layer whose input has at least as many channels as its output.
    #[error("it has no more output than input channels")]
    NotNarrower,
    /// A layer whose input has fewer channels than its output.
    #[error("it has more output than input channels, so its input is scaled instead")]
    Widens,
    /// A value that the target does not keep in blocks of channels.
    #[error("it is not an image in single precision whose channels come in blocks of 16")]
    NotBlocked,
    /// An operator between the input and the explained output.
    #[error("no backward rule for this operator")]
    NoBackwardRule,
    /// A form of an operator that has a rule in other forms.
    #[error("no backward rule for {0}")]
    NoBackwardRuleFor(&'static str),
    /// An operand that the rule of its operator does not differentiate.
    #[error("no backward rule with respect to its operand \"{0}\"")]
    NoBackwardRuleOf(String),
    /// A backward rule needs a dynamic size.
    #[error("the backward rule needs the size of {0}; give input shapes with --input-shapes")]
    OpenSize(String),
    /// An output that is not dynamic linear.
    #[error("\"{output}\" is not dynamic linear in the input because of {broken_by}")]
    NotLinear {
        /// The output.
        output: String,
        /// The nodes that break it.
        broken_by: String,
    },
    /// An output that is not one vector per image.
    #[error("the output \"{output}\" is {found}, not one vector per image; {why}")]
    NotVectors {
        /// The output.
        output: String,
        /// Its type.
        found: String,
        /// The reason, and what to do.
        why: NoVectors,
    },
    /// An input whose channel axis is not known.
    #[error(
        "the channel axis of \"{0}\", over which contributions are summed, is not known; export the model with images \
         [N, C, H, W]"
    )]
    ChannelAxis(String),
    /// A rule that only pays off if several layers share a value.
    #[error("no other layer shares it")]
    NotShared,
}

/// Why an output is not one vector per image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVectors {
    /// It is a class index, say.
    #[error("none of the outputs is floating point: export the logits too")]
    NotFloating,
    /// The batch axis was squeezed away, or reduced.
    #[error("if it holds the scores of one image, fix the batch at 1 with --input-shapes")]
    NoBatch,
    /// Another output may be one.
    #[error("choose another with --output")]
    Other,
    /// Its sizes are dynamic.
    #[error("give input shapes with --input-shapes, so that its sizes are known")]
    Open,
    /// It is a map per image.
    #[error("export the model with such an output")]
    Map,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
