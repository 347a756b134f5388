//! Losses, as operators on the logits.
//!
//! z are the logits `[N, K]`, t the targets as numbers `[N, K]`:
//!
//! ```text
//! binary cross-entropy    mean over N and K of softplus(z) - t z
//! cross-entropy           mean over N of -sum over K of t log softmax(z)
//! ```
//!
//! softplus(z) - t z is `-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`, without its overflow.

use bcosc_ir::views::AxesOp;
use bcosc_ir::{Attribute, DataType, Dim, Graph, Operand, Tensor, TensorType, Value};

use crate::build::Build;

/// The function that training minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Binary cross-entropy of each logit. The target of a class that is not the label is `off_label`, or 1/K if
    /// that is not given (B-cos networks are trained so); that of the label is 1.
    BinaryCrossEntropy {
        /// The target of the other classes.
        off_label: Option<f64>,
    },
    /// Cross-entropy of the softmax, with label smoothing as PyTorch has it.
    CrossEntropy {
        /// The share of the target that is spread over all classes.
        label_smoothing: f64,
    },
}

impl Default for Loss {
    fn default() -> Self {
        Loss::BinaryCrossEntropy { off_label: None }
    }
}

/// What the input `targets` holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Targets {
    /// The class of each image: int64 `[N]`.
    #[default]
    Labels,
    /// The target of each class, used as it is: floating point `[N, K]`.
    Probabilities,
}

impl Targets {
    /// Adds the input.
    pub(super) fn input(self, graph: &mut Graph, logits: Value, classes: u64) -> Value {
        let found = graph.value_type(logits);
        let batch = found
            .as_ref()
            .and_then(|found| found.shape.as_ref()?.first().cloned())
            .unwrap_or(Dim::Unknown);
        let (dtype, shape) = match self {
            Targets::Labels => (DataType::Int64, vec![batch]),
            Targets::Probabilities => (
                found.map_or(DataType::Float, |found| found.dtype),
                vec![batch, Dim::Known(classes)],
            ),
        };
        let shape = Some(shape);
        graph.add_input(super::TARGETS, TensorType { dtype, shape })
    }
}

/// The mean loss of a batch, a scalar.
pub(super) fn loss(
    build: &mut Build<'_>,
    loss: Loss,
    logits: Value,
    targets: (Targets, Value),
    classes: u64,
) -> Operand {
    let k = classes as f64;
    match loss {
        Loss::BinaryCrossEntropy { off_label } => {
            let off = off_label.unwrap_or(1.0 / k);
            let t = numbers(build, targets, classes, [off, 1.0]);
            let positive = build.op("Softplus", &[logits.into()]);
            let hit = build.mul(t, logits);
            let terms = build.sub(positive, hit);
            build.mean(terms)
        }
        Loss::CrossEntropy { label_smoothing: s } => {
            let t = numbers(build, targets, classes, [s / k, 1.0 - s + s / k]);
            let axis = Attribute::int("axis", 1);
            let logs = build.op_with("LogSoftmax", &[logits.into()], axis);
            let terms = build.mul(t, logs);
            let sums = build.reduce_to(AxesOp::ReduceSum, terms, &[1]);
            let mean = build.mean(sums);
            build.op("Neg", &[mean])
        }
    }
}

/// The targets as numbers `[N, K]`: labels become `off` and `on`.
fn numbers(
    build: &mut Build<'_>,
    (targets, value): (Targets, Value),
    classes: u64,
    [off, on]: [f64; 2],
) -> Operand {
    if targets == Targets::Probabilities {
        return value.into();
    }
    let column = build.unsqueeze(value, &[1]);
    let all = Tensor::i64s(&[1, classes], (0..classes as i64).collect());
    let all = build.patch.parameter("classes", all);
    let hit = build.op("Equal", &[column, all]);
    let [off, on] = [off, on].map(|x| build.number(x));
    build.op("Where", &[hit, on, off])
}
