//! Losses, as operators on the logits.
//!
//! z are the logits `[N, K]`, t the targets as numbers `[N, K]`, c the outputs of the teacher `[N, K]`:
//!
//! ```text
//! binary cross-entropy    mean over N and K of softplus(z) - t z
//! cross-entropy           mean over N of -sum over K of t log softmax(z)
//! mean square             mean over N and K of (z - c)^2
//! cosine                  mean over N of 1 - z.c / (||z|| ||c||)
//! sigmoid pairs           mean over i of sum over j of softplus(-l (scale cos(z_i, c_j) + bias)), l = 1 if i = j else -1
//! ```
//!
//! softplus(z) - t z is `-t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))`, without its overflow. Sigmoid pairs are the loss of
//! SigLIP (arXiv 2303.15343) between the embeddings of student and teacher.

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
    /// The mean squared difference from the teacher's outputs.
    MeanSquare,
    /// One minus the cosine between outputs and the teacher's.
    Cosine,
    /// For each pair of images, whether outputs and the teacher's outputs are of one image, as the sigmoid of their
    /// scaled cosine says it.
    SigmoidPairs {
        /// Factor of cosines.
        scale: f64,
        /// Added to scaled cosines.
        bias: f64,
    },
}

impl Default for Loss {
    fn default() -> Self {
        Loss::BinaryCrossEntropy { off_label: None }
    }
}

impl Loss {
    /// Sigmoid pairs with the constants that SigLIP starts from.
    pub const SIGMOID_PAIRS: Loss = Loss::SigmoidPairs {
        scale: 10.0,
        bias: -10.0,
    };

    /// Whether the loss compares with a teacher, rather than with targets.
    pub fn needs_teacher(&self) -> bool {
        !matches!(
            self,
            Loss::BinaryCrossEntropy { .. } | Loss::CrossEntropy { .. }
        )
    }
}

/// What the outputs are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Targets {
    /// The class of each image: int64 `[N]`.
    #[default]
    Labels,
    /// The target of each class, used as it is: floating point `[N, K]`.
    Probabilities,
    /// What the teacher outputs; for cross-entropies, its softmax.
    Teacher,
}

impl Targets {
    /// Adds the input; none for a teacher.
    pub(super) fn input(self, graph: &mut Graph, logits: Value, classes: u64) -> Option<Value> {
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
            Targets::Teacher => return None,
        };
        let shape = Some(shape);
        Some(graph.add_input(super::TARGETS, TensorType { dtype, shape }))
    }
}

/// What a loss reads.
pub(super) struct Compared {
    pub logits: Value,
    pub classes: u64,
    pub targets: Targets,
    /// The input with targets, or the outputs of the teacher.
    pub with: Value,
}

/// The mean loss of a batch, a scalar.
pub(super) fn loss(build: &mut Build<'_>, loss: Loss, compared: &Compared) -> Operand {
    let (z, k) = (compared.logits, compared.classes as f64);
    match loss {
        Loss::BinaryCrossEntropy { off_label } => {
            let off = off_label.unwrap_or(1.0 / k);
            let t = numbers(build, compared, [off, 1.0]);
            let positive = build.op("Softplus", &[z.into()]);
            let hit = build.mul(t, z);
            let terms = build.sub(positive, hit);
            build.mean(terms)
        }
        Loss::CrossEntropy { label_smoothing: s } => {
            let t = numbers(build, compared, [s / k, 1.0 - s + s / k]);
            let axis = Attribute::int("axis", 1);
            let logs = build.op_with("LogSoftmax", &[z.into()], axis);
            let terms = build.mul(t, logs);
            let sums = build.reduce_to(AxesOp::ReduceSum, terms, &[1]);
            let mean = build.mean(sums);
            build.op("Neg", &[mean])
        }
        Loss::MeanSquare => {
            let difference = build.sub(z, compared.with);
            let squares = build.mul(difference, difference);
            build.mean(squares)
        }
        Loss::Cosine => {
            let [z, c] = [z, compared.with].map(|x| unit(build, x));
            let terms = build.mul(z, c);
            let cosines = build.reduce_to(AxesOp::ReduceSum, terms, &[1]);
            let mean = build.mean(cosines);
            let one = build.number(1.0);
            build.sub(one, mean)
        }
        Loss::SigmoidPairs { scale, bias } => {
            let [z, c] = [z, compared.with].map(|x| unit(build, x));
            let turned = build.op_with("Transpose", &[c], Attribute::ints("perm", &[1, 0]));
            let cosines = build.op("MatMul", &[z, turned]);
            let scaled = build.times(cosines, scale);
            let bias = build.number(bias);
            let scores = build.add(scaled, bias);
            // softplus(-l s) is softplus(s) for other images, and softplus(s) - s for the same.
            let all = build.op("Softplus", &[scores]);
            let sums = build.reduce_to(AxesOp::ReduceSum, all, &[1]);
            let same = build.mul(z, c);
            let same = build.reduce_to(AxesOp::ReduceSum, same, &[1]);
            let same = build.times(same, scale);
            let same = build.add(same, bias);
            let terms = build.sub(sums, same);
            build.mean(terms)
        }
    }
}

/// Vectors `[N, K]` divided by their lengths.
fn unit(build: &mut Build<'_>, x: Value) -> Operand {
    /// The shortest length that is divided by, as in PyTorch's cosine similarity.
    const SHORTEST: f64 = 1e-8;
    let length = build.reduce(AxesOp::ReduceL2, x, &[1]);
    let shortest = build.number(SHORTEST);
    let length = build.op("Max", &[length, shortest]);
    build.div(x, length)
}

/// The targets as numbers `[N, K]`: labels become `off` and `on`.
fn numbers(build: &mut Build<'_>, compared: &Compared, [off, on]: [f64; 2]) -> Operand {
    let value = compared.with;
    match compared.targets {
        Targets::Labels => {
            let column = build.unsqueeze(value, &[1]);
            let classes = compared.classes;
            let all = Tensor::i64s(&[1, classes], (0..classes as i64).collect());
            let all = build.patch.parameter("classes", all);
            let hit = build.op("Equal", &[column, all]);
            let [off, on] = [off, on].map(|x| build.number(x));
            build.op("Where", &[hit, on, off])
        }
        Targets::Probabilities => value.into(),
        Targets::Teacher => {
            let axis = Attribute::int("axis", 1);
            build.op_with("Softmax", &[value.into()], axis)
        }
    }
}
