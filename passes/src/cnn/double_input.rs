//! The input gets twice its channels: every value comes with its inverse.
//!
//! With xn the normalised input, the first layer sees [xn, -xn] and weights [w, -w]/2, which is w.xn
//! again, whatever mean and standard deviation are. What the model takes is the input contract:
//!
//! ```text
//! same:         y = Conv (Concat (x, Neg (x)), [w, -w]/2)
//! add-inverse:  y = Conv (([x, 1-x] - [mean, 1-mean]) / [std, std], [w, -w]/2)
//! rgb:          add-inverse after Concat (x, 1 - x)
//! ```
//!
//! Absorbed, the last two need no nodes: weights `w(1-mean)/std` on x and `-w*mean/std` on 1-x give
//! `w(x-mean)/std`, and padding adds nothing on either side.

use std::collections::BTreeMap;

use bcosc_ir::{Attribute, Dim, Graph, Model, Op, Operand, Patch, Tensor, TensorType, Use, Value};

use super::first_layer::{FirstLayer, first_layers};
use crate::{
    Context, Effect, InputContract, Normalization, Outcome, Pass, PassError, Reason, weights,
};

/// The pass.
pub struct DoubleInput;

impl Pass for DoubleInput {
    fn name(&self) -> &'static str {
        "double-input"
    }

    fn summary(&self) -> &'static str {
        "give the first layer every input value with its inverse"
    }

    fn effect(&self) -> Effect {
        Effect::Exact
    }

    fn ensures(&self) -> &'static str {
        "first layers see [x, -x]"
    }

    fn run(&self, model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let image = image_input(&model.graph)?;
        let fail = |model: &Model, reason| Err(PassError::unsupported(model, image.node, reason));
        let layers = match first_layers(&model.graph, image) {
            Ok(layers) => layers,
            Err((node, reason)) => return Err(PassError::unsupported(model, node, reason)),
        };
        let channels = match channels_of(&model.graph, image) {
            Ok(channels) => channels,
            Err(reason) => return fail(model, reason),
        };
        let contract = cx.settings.input;
        let normalization = match contract {
            InputContract::Same => None,
            InputContract::AddInverse | InputContract::Rgb => {
                match raw_input(&model.graph, image, &layers, channels, cx) {
                    Ok(normalization) => Some(normalization),
                    Err(reason) => return fail(model, reason),
                }
            }
        };
        let halves = match &normalization {
            Some(n) if cx.settings.absorb_normalization => Halves::absorbed(n),
            _ => Halves::plain(channels as usize),
        };
        for layer in &layers {
            let graph = &model.graph;
            let patch = match layer.doubled(graph, &halves) {
                Ok(patch) => patch,
                Err(reason) => return Err(PassError::unsupported(model, layer.node(), reason)),
            };
            outcome.changed(graph.label(layer.node()), halves.describe());
            model.graph.apply(patch)?;
        }
        let mut doubled = BTreeMap::new();
        for layer in &layers {
            let source = layer.source();
            if doubled.insert(source, ()).is_some() {
                continue;
            }
            let targets: Vec<_> = layers.iter().filter(|l| l.source() == source).collect();
            let patch = feed(
                &model.graph,
                source,
                &targets,
                contract,
                channels,
                normalization.as_ref(),
                cx,
            );
            model.graph.apply(patch)?;
        }
        if contract == InputContract::AddInverse {
            widen(&mut model.graph, image, 2 * channels);
            outcome.changed(
                model.graph.value_name(image),
                format!("takes {} channels: [x, 1-x]", 2 * channels),
            );
        }
        Ok(outcome)
    }
}

/// How the weights of one channel are split over the channel and its inverse.
pub(crate) struct Halves {
    /// Factor of the weights on x, per channel.
    pub direct: Vec<f64>,
    /// Factor of the weights on the inverse, per channel.
    pub inverse: Vec<f64>,
    absorbed: bool,
}

impl Halves {
    fn plain(channels: usize) -> Self {
        Halves {
            direct: vec![0.5; channels],
            inverse: vec![-0.5; channels],
            absorbed: false,
        }
    }

    fn absorbed(n: &Normalization) -> Self {
        let pairs = n.mean.iter().zip(&n.std);
        let (direct, inverse) = pairs
            .map(|(mean, std)| ((1.0 - mean) / std, -mean / std))
            .unzip();
        Halves {
            direct,
            inverse,
            absorbed: true,
        }
    }

    fn describe(&self) -> &'static str {
        if self.absorbed {
            "weights doubled, normalisation absorbed"
        } else {
            "weights doubled: [w, -w]/2"
        }
    }
}

/// The one input that images come in by: the only floating-point input of rank 3 or more, or else the only input.
fn image_input(graph: &Graph) -> Result<Value, PassError> {
    let inputs = graph.inputs();
    let is_image = |v: &&Value| {
        let found = graph.value_type(**v);
        found.is_some_and(|t| {
            t.rank().is_some_and(|r| r >= 3) && Tensor::floats(t.dtype, &[0], &[]).is_some()
        })
    };
    let images: Vec<&Value> = inputs.iter().filter(is_image).collect();
    match (&images[..], &inputs[..]) {
        ([image], _) => Ok(**image),
        ([], [only]) => Ok(*only),
        _ => Err(PassError::Model(Reason::NoImageInput {
            inputs: inputs.len(),
        })),
    }
}

fn channels_of(graph: &Graph, image: Value) -> Result<u64, Reason> {
    let unknown = || Reason::UnknownShape(graph.value_name(image).to_owned());
    let shape = graph
        .value_type(image)
        .and_then(|t| t.shape)
        .ok_or_else(unknown)?;
    shape.get(1).and_then(Dim::known).ok_or_else(unknown)
}

/// What contracts on raw images need: a normalisation, and nothing between the input and the first layers.
fn raw_input(
    graph: &Graph,
    image: Value,
    layers: &[FirstLayer],
    channels: u64,
    cx: &Context<'_>,
) -> Result<Normalization, Reason> {
    let normalization = cx
        .settings
        .normalization
        .clone()
        .ok_or(Reason::NormalizationMissing)?;
    let given = normalization.mean.len().max(normalization.std.len());
    if normalization.mean.len() as u64 != channels || normalization.std.len() as u64 != channels {
        return Err(Reason::NormalizationLength { channels, given });
    }
    let known = |usage: &Use| matches!(usage, Use::Input { node, .. } if layers.iter().any(|l| l.reads_first(*node)));
    match graph.uses(image).iter().find(|usage| !known(usage)) {
        None => Ok(normalization),
        Some(Use::Input { node, .. } | Use::Capture { node, .. }) => {
            Err(Reason::PreprocessingInGraph(graph.label(*node)))
        }
        Some(Use::Output(_)) => Err(Reason::PreprocessingInGraph(
            graph.value_name(image).to_owned(),
        )),
    }
}

/// Builds what the first layers see and leads it to them.
fn feed(
    graph: &Graph,
    source: Value,
    layers: &[&FirstLayer],
    contract: InputContract,
    channels: u64,
    normalization: Option<&Normalization>,
    cx: &Context<'_>,
) -> Patch {
    let anchor = layers.first().map_or(source.node, |l| l.node());
    let dtype = graph
        .value_type(source)
        .map_or(bcosc_ir::DataType::Float, |t| t.dtype);
    let rank = graph.value_type(source).and_then(|t| t.rank()).unwrap_or(4);
    let mut patch = Patch::at(anchor);
    let x = Operand::Old(source);
    let concat = |patch: &mut Patch, inverse| {
        patch.op(
            Op::new("", "Concat")
                .named("input")
                .with(Attribute::int("axis", 1)),
            &[x, inverse],
        )
    };
    let mut seen = match contract {
        InputContract::Same => {
            let inverse = patch.op(Op::new("", "Neg"), &[x]);
            concat(&mut patch, inverse)
        }
        InputContract::Rgb => {
            let one = patch.parameter("one", weights::tensor(dtype, &[], &[1.0]));
            let inverse = patch.op(Op::new("", "Sub").named("inverse"), &[one, x]);
            concat(&mut patch, inverse)
        }
        InputContract::AddInverse => x,
    };
    if let Some(n) = normalization.filter(|_| !cx.settings.absorb_normalization) {
        let mut dims = vec![1; rank];
        dims[1] = 2 * channels;
        let mean: Vec<f64> = n
            .mean
            .iter()
            .copied()
            .chain(n.mean.iter().map(|m| 1.0 - m))
            .collect();
        let std: Vec<f64> = n.std.iter().chain(&n.std).copied().collect();
        let mean = patch.parameter("mean", weights::tensor(dtype, &dims, &mean));
        let std = patch.parameter("std", weights::tensor(dtype, &dims, &std));
        let centred = patch.op(Op::new("", "Sub").named("centred"), &[seen, mean]);
        seen = patch.op(Op::new("", "Div").named("normalized"), &[centred, std]);
    }
    for layer in layers {
        layer.feed(graph, &mut patch, seen);
    }
    patch
}

fn widen(graph: &mut Graph, image: Value, channels: u64) {
    let Some(TensorType {
        dtype,
        shape: Some(mut shape),
    }) = graph.value_type(image)
    else {
        return;
    };
    shape[1] = Dim::Known(channels);
    graph.retype_input(
        image,
        TensorType {
            dtype,
            shape: Some(shape),
        },
    );
}
