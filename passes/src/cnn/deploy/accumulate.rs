//! Features that many layers see are squared and summed once.
//!
//! In a DenseNet layer l sees `h = relu(s_l * Concat (v_1, v_2, ...))` with scales s_l of its own, and nearly
//! the same features as the layers before it. Channel c adds to its energy
//!
//! ```text
//! s^2 relu(x)^2                  where s > 0
//! s^2 (x^2 - relu(x)^2)          where s < 0
//! ```
//!
//! which is linear in squares that do not depend on l. So one 1x1 convolution a feature gives what it adds
//! to the energies of all layers, with `s^2` as weights, and a running sum replaces squares and sums that
//! grow with every layer:
//!
//! ```text
//! e_l = bcosc.Energy <1x1> (Relu (BatchNormalization (Concat (v_1, ..., v_k))))
//! a_1 = Conv (p_1 * p_1, s^2, epsilon),   a_k = Add (Conv (p_k * p_k, s^2), a_(k-1)),   p = Relu (v)
//! e_l = Gather <axis = 1> (a_k, [l])
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Value};

use super::fold_norms::norm_scale;
use super::marker::Energy;
use super::power::power;
use crate::weights::{self, WeightError};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub struct AccumulateEnergies;

impl Pass for AccumulateEnergies {
    fn name(&self) -> &'static str {
        "accumulate-energies"
    }

    fn summary(&self) -> &'static str {
        "with --deploy: sum the squares of concatenated features once for all layers that see them"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn requires(&self) -> &'static [&'static str] {
        &["signed-squares"]
    }

    fn ensures(&self) -> &'static str {
        "layers that see the same features through scales of their own share the sums of squares"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        if !cx.settings.deploy {
            return Ok(outcome);
        }
        let graph = &model.graph;
        let mut layers = Vec::new();
        for node in graph.ops() {
            match dense_layer(graph, node) {
                None => {}
                Some(Ok(layer)) => layers.push(layer),
                Some(Err(error)) => error.settle(graph, node, &mut outcome)?,
            }
        }
        let mut patches = Vec::new();
        for block in blocks(layers) {
            if let [layer] = &block[..] {
                outcome.skipped(graph.label(layer.node), Reason::NotShared);
                continue;
            }
            for layer in &block {
                outcome.changed(graph.label(layer.node), "energy from a running sum");
            }
            patches.push(accumulate(graph, &block));
        }
        for patch in patches {
            model.graph.apply(patch)?;
        }
        Ok(outcome)
    }
}

/// A layer that sees rectified, scaled features.
struct DenseLayer {
    /// Its energy.
    node: NodeId,
    energy: Energy,
    features: Vec<Feature>,
}

/// Some channels of what a layer sees.
struct Feature {
    value: Value,
    /// What the layer multiplies each channel by.
    scale: Vec<f64>,
}

/// Sees an energy of rectified, scaled features; `None` where a node is something else.
fn dense_layer(graph: &Graph, node: NodeId) -> Option<Result<DenseLayer, WeightError>> {
    graph.op(node).filter(|op| op.op_type() == "Energy")?;
    let energy = Energy::of(graph, node)?;
    let plain = energy.window.is_pointwise() && energy.group == 1 && energy.gain == 1.0;
    let (relu, _) = graph.producer(energy.x).filter(|(_, op)| op.is("Relu"))?;
    let norm = BatchNorm::of(graph, graph.input(relu, 0)?.node)?;
    if !plain {
        return Some(Err(Reason::NotPointwise.into()));
    }
    Some(features(graph, &norm).map(|features| DenseLayer {
        node,
        energy,
        features,
    }))
}

/// The values that a norm's input is put together from, with their channels' scales.
fn features(graph: &Graph, norm: &BatchNorm) -> Result<Vec<Feature>, WeightError> {
    let scales = norm_scale(graph, norm)?;
    let mut rest = &scales[..];
    let mut features = Vec::new();
    for value in parts(graph, norm.x) {
        let unknown = || Reason::UnknownShape(graph.value_name(value).to_owned());
        let shape = graph.value_type(value).and_then(|t| t.shape);
        let channels = shape
            .as_ref()
            .and_then(|s| s.get(1))
            .and_then(Dim::known)
            .ok_or_else(unknown)?;
        let (own, others) = rest
            .split_at_checked(channels as usize)
            .ok_or(Reason::Malformed)?;
        rest = others;
        let scale = own.to_vec();
        features.push(Feature { value, scale });
    }
    Ok(features)
}

/// A value, or what it is concatenated from, channel by channel.
fn parts(graph: &Graph, value: Value) -> Vec<Value> {
    match graph.producer(value) {
        Some((node, op)) if op.is("Concat") && op.int("axis", 0) == 1 => {
            let inputs = graph.inputs_of(node).into_iter().flatten();
            inputs.flat_map(|input| parts(graph, input)).collect()
        }
        _ => vec![value],
    }
}

/// Groups layers that share a feature, in order.
fn blocks(layers: Vec<DenseLayer>) -> Vec<Vec<DenseLayer>> {
    let mut blocks: Vec<Vec<DenseLayer>> = Vec::new();
    for layer in layers {
        let own: BTreeSet<Value> = layer.features.iter().map(|f| f.value).collect();
        let related = |block: &Vec<DenseLayer>| {
            let seen = block.iter().flat_map(|l| &l.features);
            seen.into_iter().any(|f| own.contains(&f.value))
        };
        match blocks.iter_mut().find(|block| related(block)) {
            Some(block) => block.push(layer),
            None => blocks.push(vec![layer]),
        }
    }
    blocks
}

fn accumulate(graph: &Graph, block: &[DenseLayer]) -> Patch {
    let first = &block[0];
    let dtype = graph
        .value_type(first.energy.x)
        .map_or(bcosc_ir::DataType::Float, |t| t.dtype);
    let rank = first.energy.window.rank();
    let mut patch = Patch::at(first.node);
    let mut sums: BTreeMap<Value, Operand> = BTreeMap::new();
    let mut sum: Option<Operand> = None;
    for value in in_order(graph, block) {
        let [rectified, whole] = weights_of(block, value);
        let channels = rectified.len() / block.len();
        let mut dims = vec![block.len() as u64, channels as u64];
        dims.resize(rank + 2, 1);
        let part = patch.op(Op::new("", "Relu").named("part"), &[value.into()]);
        for (x, weights) in [(part, rectified), (value.into(), whole)] {
            if weights.iter().all(|&w| w == 0.0) {
                continue;
            }
            let squares = patch.op(Op::new("", "Mul").named("squares"), &[x, x]);
            let weights = weights::tensor(dtype, &dims, &weights);
            let mut inputs = vec![squares, patch.parameter("squared_scales", weights)];
            if sum.is_none() {
                let epsilons: Vec<f64> = block.iter().map(|l| l.energy.epsilon).collect();
                let epsilons = weights::tensor(dtype, &[block.len() as u64], &epsilons);
                inputs.push(patch.parameter("epsilon", epsilons));
            }
            let op = Op::new("", "Conv")
                .named("energies")
                .with_ints("kernel_shape", &vec![1; rank]);
            let more = patch.op(op, &inputs);
            sum = Some(match sum {
                None => more,
                Some(sum) => patch.op(Op::new("", "Add").named("sum"), &[more, sum]),
            });
        }
        sums.extend(sum.map(|sum| (value, sum)));
    }
    let order = in_order(graph, block);
    for (row, layer) in block.iter().enumerate() {
        let seen = |v: &&Value| layer.features.iter().any(|f| f.value == **v);
        let last = order.iter().rev().find(seen).and_then(|v| sums.get(v));
        let Some(&sum) = last else { continue };
        let row = patch.parameter("row", Tensor::i64_vec(&[row as i64]));
        let gather = Op::new("", "Gather").named("energy").with_int("axis", 1);
        let energy = patch.op(gather, &[sum, row]);
        let positions = positions(graph, layer.energy.x);
        let powered = power(&mut patch, energy, layer.energy.exponent, dtype, positions);
        let old = Value {
            node: layer.node,
            slot: 0,
        };
        patch.replace(old, powered);
    }
    patch
}

/// The features of a block, producers first.
fn in_order(graph: &Graph, block: &[DenseLayer]) -> Vec<Value> {
    let features = block.iter().flat_map(|l| &l.features);
    let distinct: BTreeSet<Value> = features.map(|f| f.value).collect();
    let place: BTreeMap<NodeId, usize> = graph
        .nodes()
        .into_iter()
        .enumerate()
        .map(|(i, id)| (id, i))
        .collect();
    let mut values: Vec<Value> = distinct.into_iter().collect();
    values.sort_by_key(|v| (place.get(&v.node).copied(), v.slot));
    values
}

/// What the squares of a feature's positive part, and of the feature, add to every layer's energy: a row a layer.
fn weights_of(block: &[DenseLayer], value: Value) -> [Vec<f64>; 2] {
    let channels = block
        .iter()
        .flat_map(|l| &l.features)
        .find(|f| f.value == value)
        .map_or(0, |f| f.scale.len());
    let mut rows = [
        vec![0.0; channels * block.len()],
        vec![0.0; channels * block.len()],
    ];
    for (row, layer) in block.iter().enumerate() {
        for feature in layer.features.iter().filter(|f| f.value == value) {
            for (c, &s) in feature.scale.iter().enumerate() {
                let at = row * channels + c;
                rows[0][at] += s * s.abs();
                rows[1][at] += if s < 0.0 { s * s } else { 0.0 };
            }
        }
    }
    rows
}

fn positions(graph: &Graph, x: Value) -> Option<u64> {
    let shape = graph.value_type(x)?.shape?;
    shape.get(2..)?.iter().map(Dim::known).product()
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::AccumulateEnergies;
    use crate::cnn::deploy::signed_square::SignedSquares;
    use crate::cnn::deploy::square_relu::SquareAfterRelu;
    use crate::cnn::deploy::testing::{bcos, conv, deployed, image, norm, refused};
    use crate::testing::text;
    use crate::{Pass, Reason};

    const RULES: &[&dyn Pass] = &[&SquareAfterRelu, &SignedSquares, &AccumulateEnergies];

    /// A layer on rectified, scaled features.
    fn dense(builder: ModelBuilder, x: &str, y: &str, channels: u64) -> ModelBuilder {
        let (scaled, seen) = (format!("{y}.scaled"), format!("{y}.seen"));
        let builder = norm(builder, x, &scaled, channels).op("Relu", &[&scaled], &seen, []);
        conv(builder, &seen, y, &[2, channels, 1, 1], [])
    }

    fn concat(builder: ModelBuilder, inputs: &[&str], y: &str) -> ModelBuilder {
        builder.op("Concat", inputs, y, [Attribute::int("axis", 1)])
    }

    #[test]
    fn layers_that_share_features_share_their_squares() {
        let one = concat(dense(image(), "x", "a", 3), &["x", "a"], "xa");
        let two = concat(dense(one, "xa", "b", 5), &["xa", "b"], "xab");
        let model = bcos(dense(two, "xab", "y", 7).output("y"), 2.0);
        let (after, outcome) = deployed(RULES, &model);
        assert_eq!(outcome.changes.len(), 3);
        insta::assert_snapshot!(text(&after), @"");
    }

    #[test]
    fn a_layer_alone_keeps_its_own() {
        let model = bcos(dense(image(), "x", "y", 3).output("y"), 2.0);
        assert_eq!(refused(RULES, &model), [Reason::NotShared]);
    }

    #[test]
    fn patches_keep_their_own() {
        let seen = norm(image(), "x", "s", 3).op("Relu", &["s"], "r", []);
        let model = bcos(conv(seen, "r", "y", &[2, 3, 3, 3], []).output("y"), 2.0);
        assert_eq!(refused(RULES, &model), [Reason::NotPointwise]);
    }
}
