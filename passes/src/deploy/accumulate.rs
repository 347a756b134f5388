//! Sums of squares of features that several layers read are computed once.
//!
//! In a DenseNet, layer l reads `h = relu(s_l * Concat (v_1, v_2, ...))` with its own scales s_l, and nearly
//! the same features as the layers before it. The contribution of a channel to its energy is
//!
//! ```text
//! s^2 relu(x)^2                  where s > 0
//! s^2 (x^2 - relu(x)^2)          where s < 0
//! ```
//!
//! which is linear in squares that do not depend on l. So one 1x1 convolution per feature, with `s^2` as weights,
//! computes its contributions to the energies of all layers, and a running sum replaces sums of squares that
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
use super::power::power;
use crate::analysis::weights::{self, WeightError};
use crate::dialect::Energy;
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static ACCUMULATE_ENERGIES: Pass = Pass {
    name: "accumulate-energies",
    summary: "with --deploy: sum the squares of concatenated features once for all layers that see them",
    effect: Effect::Exact,
    requires: &[&crate::deploy::signed_square::SIGNED_SQUARES],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
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
            Some(Err(error)) => error.skip_or_fail(graph, node, &mut outcome)?,
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

/// A layer on rectified, scaled features.
struct DenseLayer {
    /// Its energy.
    node: NodeId,
    energy: Energy,
    features: Vec<Feature>,
}

/// Some input channels of a layer.
struct Feature {
    value: Value,
    /// The layer's scale of each channel.
    scale: Vec<f64>,
}

/// The energy of rectified, scaled features at a node; `None` for other nodes.
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

/// The concatenated values of a norm's input, with the scales of their channels.
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

/// A value, or the values it is concatenated from along channels.
fn parts(graph: &Graph, value: Value) -> Vec<Value> {
    match graph.producer(value) {
        Some((node, op)) if op.is("Concat") && op.get("axis") == Some(1_i64) => {
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

/// The features of a block in topological order.
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

/// The contributions of the squares of a feature's positive part, and of the feature, to every layer's energy: one row
/// per layer.
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

    use super::ACCUMULATE_ENERGIES;
    use crate::deploy::signed_square::SIGNED_SQUARES;
    use crate::deploy::square_relu::SQUARE_AFTER_RELU;
    use crate::deploy::testing::{bcos, deployed, image, refused};
    use crate::testing::{Layers, text};
    use crate::{Pass, Reason};

    const RULES: &[&Pass] = &[&SQUARE_AFTER_RELU, &SIGNED_SQUARES, &ACCUMULATE_ENERGIES];

    /// A layer on rectified, scaled features.
    fn dense(builder: ModelBuilder, x: &str, y: &str, channels: u64) -> ModelBuilder {
        let (scaled, seen) = (format!("{y}.scaled"), format!("{y}.seen"));
        let builder = builder
            .scale_norm(x, &scaled, channels)
            .op("Relu", &[&scaled], &seen, []);
        builder.conv(&seen, y, &[2, channels, 1, 1], [])
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
        insta::assert_snapshot!(text(&after), @r#"
        <
           ir_version: 10,
           opset_import: ["" : 17]
        >
        main (float[batch,3,6,8] x) => (y)
        <
           float[3] "a.scaled.gamma" = {1.0344261, 0.8179884, -1.0858047},
           float[3] "a.scaled.beta" = {0.0, 0.0, 0.0},
           float[3] "a.scaled.mean" = {0.0, 0.0, 0.0},
           float[3] "a.scaled.var" = {0.81243485, 0.33257923, 0.8609626},
           float[2,3,1,1] "a.w" = {-0.8198231, -0.5585862, -1.0915186, -1.0646492, 0.34965923, 0.62712014},
           float[5] "b.scaled.gamma" = {-0.42343044, 1.0752838, 0.47338367, 0.9197123, 0.8644232},
           float[5] "b.scaled.beta" = {0.0, 0.0, 0.0, 0.0, 0.0},
           float[5] "b.scaled.mean" = {0.0, 0.0, 0.0, 0.0, 0.0},
           float[5] "b.scaled.var" = {0.81243485, 0.33257923, 0.8609626, 0.25880557, 0.19681376},
           float[2,5,1,1] "b.w" = {-1.0143253, 0.68723387, 0.2853081, 0.7341959, ... 9ca09168},
           float[7] "y.scaled.gamma" = {-0.81243485, -0.33257923, 0.8609626, 0.25880557, 0.19681376, 0.5507204, 0.39432588},
           float[7] "y.scaled.beta" = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0},
           float[7] "y.scaled.mean" = {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0},
           float[7] "y.scaled.var" = {0.81243485, 0.33257923, 0.8609626, 0.25880557, 0.19681376, 0.5507204, 0.39432588},
           float[2,7,1,1] "y.w" = {0.48787567, 0.6461313, 0.7424666, 0.13376875, ... 329fcdd9},
           float[3,3,1,1] "a.bcos.energy.squared_scales" = {1.3170584, 2.011806, -1.3693488, -0.22068371, ... 3b039c6f},
           float[3] "a.bcos.energy.epsilon" = {1e-6, 1e-6, 1e-6},
           float[3,3,1,1] "a.bcos.energy.squared_scales_2" = {0.0, 0.0, 1.3693488, 0.22068371, ... a74f9843},
           float[3,2,1,1] "a.bcos.energy.squared_scales_3" = {0.0, 0.0, 3.2682374, 3.7964294, 0.25879556, 0.19680376},
           float[3,2,1,1] "a.bcos.energy.squared_scales_4" = {0.0, 0.0, 0.0, 0.0, 0.5507104, 0.39431587},
           int64[1] "a.bcos.energy.row" = {0},
           float "a.bcos.energy.exponent" = {-0.5},
           int64[1] "a.bcos.energy.row_2" = {1},
           float "a.bcos.energy.exponent_2" = {-0.5},
           int64[1] "a.bcos.energy.row_3" = {2},
           float "a.bcos.energy.exponent_3" = {-0.5}
        >
        {
           "a.scaled" = BatchNormalization (x, "a.scaled.gamma", "a.scaled.beta", "a.scaled.mean", "a.scaled.var")
           "a.seen" = Relu ("a.scaled")
           a = Conv ("a.seen", "a.w")
           ["a.bcos.abs"] "a.bcos.abs" = Abs (a)  # from a
           ["a.bcos.square"] "a.bcos.square" = Mul (a, "a.bcos.abs")  # from a
           ["a.bcos.energy.part"] "a.bcos.energy.part" = Relu (x)  # from a
           ["a.bcos.energy.squares"] "a.bcos.energy.squares" = Mul ("a.bcos.energy.part", "a.bcos.energy.part")  # from a
           ["a.bcos.energy.energies"] "a.bcos.energy.energies" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.squares", "a.bcos.energy.squared_scales", "a.bcos.energy.epsilon")  # from a
           ["a.bcos.energy.squares_2"] "a.bcos.energy.squares_2" = Mul (x, x)  # from a
           ["a.bcos.energy.energies_2"] "a.bcos.energy.energies_2" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.squares_2", "a.bcos.energy.squared_scales_2")  # from a
           ["a.bcos.energy.sum"] "a.bcos.energy.sum" = Add ("a.bcos.energy.energies_2", "a.bcos.energy.energies")  # from a
           ["a.bcos.energy.energy"] "a.bcos.energy.energy" = Gather <axis = 1> ("a.bcos.energy.sum", "a.bcos.energy.row")  # from a
           ["a.bcos.energy.pow"] "a.bcos.energy.pow" = Pow ("a.bcos.energy.energy", "a.bcos.energy.exponent")  # from a
           ["a.bcos.weighed"] "a.bcos.weighed" = bcosc.Weigh <group = 1, channels = 2, spatial = 2> ("a.bcos.square", "a.bcos.energy.pow")  # from a
           ["a.bcos.energy.part_2"] "a.bcos.energy.part_2" = Relu ("a.bcos.weighed")  # from a
           ["a.bcos.energy.squares_3"] "a.bcos.energy.squares_3" = Mul ("a.bcos.energy.part_2", "a.bcos.energy.part_2")  # from a
           ["a.bcos.energy.energies_3"] "a.bcos.energy.energies_3" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.squares_3", "a.bcos.energy.squared_scales_3")  # from a
           ["a.bcos.energy.sum_2"] "a.bcos.energy.sum_2" = Add ("a.bcos.energy.energies_3", "a.bcos.energy.sum")  # from a
           ["a.bcos.energy.energy_2"] "a.bcos.energy.energy_2" = Gather <axis = 1> ("a.bcos.energy.sum_2", "a.bcos.energy.row_2")  # from a
           ["a.bcos.energy.pow_2"] "a.bcos.energy.pow_2" = Pow ("a.bcos.energy.energy_2", "a.bcos.energy.exponent_2")  # from a
           xa = Concat <axis = 1> (x, "a.bcos.weighed")
           "b.scaled" = BatchNormalization (xa, "b.scaled.gamma", "b.scaled.beta", "b.scaled.mean", "b.scaled.var")
           "b.seen" = Relu ("b.scaled")
           b = Conv ("b.seen", "b.w")
           ["b.bcos.abs"] "b.bcos.abs" = Abs (b)  # from b
           ["b.bcos.square"] "b.bcos.square" = Mul (b, "b.bcos.abs")  # from b
           ["b.bcos.weighed"] "b.bcos.weighed" = bcosc.Weigh <group = 1, channels = 2, spatial = 2> ("b.bcos.square", "a.bcos.energy.pow_2")  # from b
           ["a.bcos.energy.part_3"] "a.bcos.energy.part_3" = Relu ("b.bcos.weighed")  # from a
           ["a.bcos.energy.squares_4"] "a.bcos.energy.squares_4" = Mul ("a.bcos.energy.part_3", "a.bcos.energy.part_3")  # from a
           ["a.bcos.energy.energies_4"] "a.bcos.energy.energies_4" = Conv <kernel_shape = [1, 1]> ("a.bcos.energy.squares_4", "a.bcos.energy.squared_scales_4")  # from a
           ["a.bcos.energy.sum_3"] "a.bcos.energy.sum_3" = Add ("a.bcos.energy.energies_4", "a.bcos.energy.sum_2")  # from a
           ["a.bcos.energy.energy_3"] "a.bcos.energy.energy_3" = Gather <axis = 1> ("a.bcos.energy.sum_3", "a.bcos.energy.row_3")  # from a
           ["a.bcos.energy.pow_3"] "a.bcos.energy.pow_3" = Pow ("a.bcos.energy.energy_3", "a.bcos.energy.exponent_3")  # from a
           xab = Concat <axis = 1> (xa, "b.bcos.weighed")
           "y.scaled" = BatchNormalization (xab, "y.scaled.gamma", "y.scaled.beta", "y.scaled.mean", "y.scaled.var")
           "y.seen" = Relu ("y.scaled")
           "y.before" = Conv ("y.seen", "y.w")
           ["y.bcos.abs"] "y.bcos.abs" = Abs ("y.before")  # from y
           ["y.bcos.square"] "y.bcos.square" = Mul ("y.before", "y.bcos.abs")  # from y
           ["y.bcos.weighed"] y = bcosc.Weigh <group = 1, channels = 2, spatial = 2> ("y.bcos.square", "a.bcos.energy.pow_3")  # from y
        }
        "#);
    }

    #[test]
    fn a_layer_alone_keeps_its_own() {
        let model = bcos(dense(image(), "x", "y", 3).output("y"), 2.0);
        assert_eq!(refused(RULES, &model), [Reason::NotShared]);
    }

    #[test]
    fn patches_keep_their_own() {
        let seen = image().scale_norm("x", "s", 3).op("Relu", &["s"], "r", []);
        let model = bcos(seen.conv("r", "y", &[2, 3, 3, 3], []).output("y"), 2.0);
        assert_eq!(refused(RULES, &model), [Reason::NotPointwise]);
    }
}
