//! Rewrites norms of weights as arithmetic that the interpreter can evaluate.
//!
//! Standardised weights (NFNet, BiT) are exported as a `BatchNormalization` of a parameter, in training mode
//! or with computed statistics:
//!
//! ```text
//! w = BatchNormalization <training_mode = 1> (v, scale, bias, m, s)
//! w = (v - mean (v)) / sqrt (var (v) + eps) * scale + bias
//! ```

use bcosc_ir::views::{AxesOp, reduce, unsqueeze};
use bcosc_ir::{Facts, Model, NodeId, Op, Operand, Patch, Value};

use super::plan::constant_ops;
use crate::analysis::weights;
use crate::{Outcome, PassError, Reason};

/// Rewrites every norm of weights; returns how many there were.
pub(super) fn resolve(
    model: &mut Model,
    facts: &Facts,
    outcome: &mut Outcome,
) -> Result<usize, PassError> {
    let graph = &model.graph;
    let constant = constant_ops(graph, facts, &graph.ops());
    let is_norm = |id: &NodeId| graph.op(*id).is_some_and(|op| op.is("BatchNormalization"));
    let norms: Vec<NodeId> = constant.into_iter().filter(is_norm).collect();
    let opset = model.opset("").unwrap_or(0);
    let mut done = 0;
    for node in norms {
        let label = model.graph.label(node);
        match arithmetic(model, node, opset) {
            Ok(patch) => {
                outcome.changed(label, "norm of weights written as arithmetic");
                model.graph.apply(patch)?;
                done += 1;
            }
            Err(reason) => outcome.skipped(label, reason),
        }
    }
    Ok(done)
}

fn arithmetic(model: &Model, node: NodeId, opset: i64) -> Result<Patch, Reason> {
    let graph = &model.graph;
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    let operand = |slot| graph.input(node, slot).ok_or(Reason::Malformed);
    let x = operand(0)?;
    let unknown = || Reason::UnknownShape(graph.value_name(x).to_owned());
    let found = graph.value_type(x).ok_or_else(unknown)?;
    let rank = found.rank().filter(|&rank| rank > 1).ok_or_else(unknown)? as i64;
    let used = |slot| !graph.uses(Value { node, slot }).is_empty();
    if (1..graph.output_count(node)).any(used) {
        return Err(Reason::TrainingMode);
    }
    let others: Vec<i64> = (0..rank).filter(|&axis| axis != 1).collect();
    let behind: Vec<i64> = (1..rank - 1).collect();
    let mut patch = Patch::at(node);
    let channels = |patch: &mut Patch, value: Value| match behind.is_empty() {
        true => Operand::Old(value),
        false => unsqueeze(patch, opset, value.into(), &behind),
    };
    let x = Operand::Old(x);
    let (mean, var) = if op.get("training_mode") == Some(true) {
        let mean = reduce(&mut patch, opset, AxesOp::ReduceMean, x, &others);
        let centred = patch.op(Op::new("", "Sub"), &[x, mean]);
        let squares = patch.op(Op::new("", "Mul"), &[centred, centred]);
        (
            mean,
            reduce(&mut patch, opset, AxesOp::ReduceMean, squares, &others),
        )
    } else {
        let mean = channels(&mut patch, operand(3)?);
        (mean, channels(&mut patch, operand(4)?))
    };
    let scale = channels(&mut patch, operand(1)?);
    let bias = channels(&mut patch, operand(2)?);
    let epsilon: f32 = op.get("epsilon").ok_or(Reason::Malformed)?;
    let epsilon = weights::tensor(found.dtype, &[], &[epsilon.into()]);
    let epsilon = patch.parameter("epsilon", epsilon);
    let centred = patch.op(Op::new("", "Sub"), &[x, mean]);
    let power = patch.op(Op::new("", "Add"), &[var, epsilon]);
    let deviation = patch.op(Op::new("", "Sqrt"), &[power]);
    let normed = patch.op(Op::new("", "Div"), &[centred, deviation]);
    let scaled = patch.op(Op::new("", "Mul"), &[normed, scale]);
    let shifted = patch.op(Op::new("", "Add"), &[scaled, bias]);
    patch.replace(Value { node, slot: 0 }, shifted);
    Ok(patch)
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use crate::canonical::FOLD_CONSTANTS;
    use crate::testing::{Layers, apply, image, model, weight};

    fn standardised(attributes: Vec<Attribute>) -> ModelBuilder {
        image("batch,3,4,4")
            .param("v", weight(1, &[1, 2, 27]))
            .param("scale", weight(2, &[2]))
            .param("bias", weight(3, &[2]))
            .param("mean", weight(4, &[2]))
            .param("var", bcosc_ir::Tensor::f32s(&[2], vec![0.5, 2.0]))
            .op(
                "BatchNormalization",
                &["v", "scale", "bias", "mean", "var"],
                "n",
                attributes,
            )
            .param("shape", bcosc_ir::Tensor::i64_vec(&[2, 3, 3, 3]))
            .op("Reshape", &["n", "shape"], "w", [])
            .op("Conv", &["x", "w"], "y", [])
            .output("y")
    }

    /// The elements of the convolution's weight once it is a constant.
    fn folded(builder: ModelBuilder) -> Vec<f64> {
        let mut model = model(builder);
        apply(&FOLD_CONSTANTS, &mut model);
        let graph = &model.graph;
        let conv = graph
            .ops()
            .into_iter()
            .find(|id| graph.op(*id).is_some_and(|op| op.is("Conv")));
        let weight = conv.and_then(|id| graph.constant(graph.input(id, 1)?));
        weight.and_then(|w| w.to_f64s().ok()).unwrap_or_default()
    }

    fn expected(mean: [f64; 2], var: [f64; 2]) -> Vec<f64> {
        let numbers = |seed, dims: &[u64]| weight(seed, dims).to_f64s().unwrap_or_default();
        let (v, scale, bias) = (numbers(1, &[1, 2, 27]), numbers(2, &[2]), numbers(3, &[2]));
        let at = |(i, x): (usize, &f64)| {
            (x - mean[i / 27]) / (var[i / 27] + 1e-5).sqrt() * scale[i / 27] + bias[i / 27]
        };
        v.iter().enumerate().map(at).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(worst.fold(0.0, f64::max) < 1e-5);
    }

    #[test]
    fn in_training_mode_with_the_statistics_of_the_weights() {
        let v = weight(1, &[1, 2, 27]).to_f64s().unwrap_or_default();
        let mean = |c: usize| v[27 * c..27 * (c + 1)].iter().sum::<f64>() / 27.0;
        let var = |c: usize| {
            v[27 * c..27 * (c + 1)]
                .iter()
                .map(|x| (x - mean(c)).powi(2))
                .sum::<f64>()
                / 27.0
        };
        let found = folded(standardised(vec![Attribute::int("training_mode", 1)]));
        assert_close(&found, &expected([mean(0), mean(1)], [var(0), var(1)]));
    }

    #[test]
    fn with_statistics_that_are_given() {
        let mean = weight(4, &[2]).to_f64s().unwrap_or_default();
        let found = folded(standardised(vec![]));
        assert_close(&found, &expected([mean[0], mean[1]], [0.5, 2.0]));
    }

    #[test]
    fn a_norm_of_data_stays() {
        let mut model = model(image("batch,2,4").norm("x", "y", 2).output("y"));
        let outcome = apply(&FOLD_CONSTANTS, &mut model);
        assert!(outcome.changes.is_empty());
    }
}
