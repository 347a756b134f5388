//! Doubles the input channels: every value is paired with its inverse.
//!
//! With xn the normalised input, the first layer gets [xn, -xn] and weights [w, -w]/2, so that its output is still
//! w.xn for any mean and standard deviation. The input format decides what the model takes:
//!
//! ```text
//! same:         y = Conv (Concat (x, Neg (x)), [w, -w]/2)
//! add-inverse:  y = Conv (([x, 1-x] - [mean, 1-mean]) / [std, std], [w, -w]/2)
//! rgb:          add-inverse after Concat (x, 1 - x)
//! ```
//!
//! With --absorb-normalization, the last two need no nodes: weights `w(1-mean)/std` on x and `-w*mean/std` on 1-x give
//! `w(x-mean)/std`, and padding adds nothing on either side.

use std::collections::BTreeMap;

use bcosc_ir::{DataType, Dim, Graph, Model, Op, Operand, Patch, TensorType, Use, Value};

use super::first_layer::{FirstLayer, FirstLayers};
use super::sizes;
use crate::analysis::image::image_input;
use crate::analysis::layers::reads_shape;
use crate::analysis::weights;
use crate::{Context, Effect, InputContract, Normalization, Outcome, Pass, PassError, Reason};

/// The pass.
pub static DOUBLE_INPUT: Pass = Pass {
    name: "double-input",
    summary: "double the input channels: [x, -x] or [x, 1-x]",
    effect: Effect::Exact,
    requires: &[],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    let image = image_input(&model.graph).ok_or_else(|| {
        let inputs = model.graph.inputs().len();
        PassError::Model(Reason::NoImageInput { inputs })
    })?;
    let first_layers = FirstLayers::of(&model.graph, image)
        .map_err(|(node, reason)| PassError::unsupported(model, node, reason))?;
    let raw = match cx.settings.input {
        InputContract::Same => None,
        InputContract::AddInverse | InputContract::Rgb => Some(
            Raw::of(&model.graph, image, &first_layers, cx)
                .map_err(|reason| PassError::unsupported(model, image.node, reason))?,
        ),
    };
    let halves = match &raw {
        Some(raw) if raw.absorbed => Halves::absorbed(&raw.normalization),
        _ => Halves::Plain,
    };
    let mut doubled = BTreeMap::new();
    for first in &first_layers.layers {
        let node = first.node();
        let fail = |model: &Model, reason| PassError::unsupported(model, node, reason);
        let at = first.channels(&model.graph).map_err(|r| fail(model, r))?;
        let (axis, channels) = at;
        let seen = match doubled.get(&(first.source(), axis)) {
            Some(seen) => *seen,
            None => {
                let seen = double(model, first, at, raw.as_ref())?;
                doubled.insert((first.source(), axis), seen);
                seen
            }
        };
        let from = match halves {
            Halves::Plain => vec![0; first.inputs() as usize],
            Halves::Absorbed { .. } => first.input_channels(model, channels, cx)?,
        };
        let weight = first.doubled_weight(&model.graph, &halves, &from);
        let weight = weight.map_err(|error| error.at(model, node))?;
        let mut patch = Patch::at(node);
        let weight = patch.parameter("weight", weight);
        let fed = first.feed(&model.graph, &mut patch, seen, channels);
        patch.set_input(node, 0, Some(fed));
        patch.set_input(node, 1, Some(weight));
        outcome.changed(model.graph.label(node), halves.describe());
        model.graph.apply(patch)?;
    }
    if raw.is_some() {
        forget_normalised(&mut model.graph, image, &first_layers);
    }
    if let Some(raw) = raw.filter(|raw| !raw.inverted_here) {
        sizes::keep(model, image)?;
        widen(&mut model.graph, image, 2 * raw.channels);
        outcome.changed(
            model.graph.value_name(image),
            format!("takes {} channels: [x, 1-x]", 2 * raw.channels),
        );
    }
    Ok(outcome)
}

/// How to split the weights of a channel between the channel and its inverse.
pub(crate) enum Halves {
    /// Equally.
    Plain,
    /// With the normalisation, by channel.
    Absorbed {
        /// Factors of the weights on x.
        direct: Vec<f64>,
        /// Factors of the weights on 1-x.
        inverse: Vec<f64>,
    },
}

impl Halves {
    fn absorbed(n: &Normalization) -> Self {
        let pairs = n.mean.iter().zip(&n.std);
        let (direct, inverse) = pairs
            .map(|(mean, std)| ((1.0 - mean) / std, -mean / std))
            .unzip();
        Halves::Absorbed { direct, inverse }
    }

    /// Factors of a channel's weights, on the channel and on its inverse.
    pub(crate) fn factors(&self, channel: usize) -> [f64; 2] {
        match self {
            Halves::Plain => [0.5, -0.5],
            Halves::Absorbed { direct, inverse } => [direct[channel], inverse[channel]],
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            Halves::Plain => "weights doubled: [w, -w]/2",
            Halves::Absorbed { .. } => "weights doubled, normalisation absorbed",
        }
    }
}

/// An input format for raw images in [0, 1].
struct Raw {
    channels: u64,
    normalization: Normalization,
    /// The graph computes 1-x; it is not an input.
    inverted_here: bool,
    /// The normalisation is part of the weights of the first layer.
    absorbed: bool,
}

impl Raw {
    /// Only structural operators may be between the image and the first layers, and the channels must match.
    fn of(
        graph: &Graph,
        image: Value,
        first_layers: &FirstLayers,
        cx: &Context<'_>,
    ) -> Result<Self, Reason> {
        let normalization = cx.settings.normalization.clone();
        let normalization = normalization.ok_or(Reason::NormalizationMissing)?;
        let inverted_here = cx.settings.input == InputContract::Rgb;
        let processes = |reason: String| Err(Reason::PreprocessingInGraph(reason));
        for &node in &first_layers.passed {
            if !first_layers
                .layers
                .iter()
                .any(|first| first.is_on_path(node))
            {
                return processes(graph.label(node));
            }
        }
        for usage in graph.uses(image) {
            match usage {
                Use::Output(_) => return processes(graph.value_name(image).to_owned()),
                Use::Input { node, .. } | Use::Capture { node, .. }
                    if reads_shape(graph, node)
                        && !inverted_here
                        && sizes::divisor(graph, image, node).is_none() =>
                {
                    return processes(graph.label(node));
                }
                Use::Input { .. } | Use::Capture { .. } => {}
            }
        }
        let mut channels = None;
        for first in &first_layers.layers {
            let (axis, found) = first.channels(graph)?;
            if first.source() != image || axis != 1 || channels.is_some_and(|c| c != found) {
                return Err(Reason::FirstLayerForm);
            }
            channels = Some(found);
        }
        let channels = channels.ok_or(Reason::NoLinearLayer)?;
        let (mean, std) = (&normalization.mean, &normalization.std);
        if let Some(given) = [mean.len(), std.len()]
            .into_iter()
            .find(|&given| given as u64 != channels)
        {
            return Err(Reason::NormalizationLength { channels, given });
        }
        if mean.iter().any(|m| !m.is_finite()) || std.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(Reason::NormalizationValue);
        }
        Ok(Raw {
            channels,
            normalization,
            inverted_here,
            absorbed: cx.settings.absorb_normalization,
        })
    }

    /// The normalised form of twice the channels.
    fn normalized(&self, patch: &mut Patch, seen: Operand, like: (DataType, usize)) -> Operand {
        let Normalization { mean, std } = &self.normalization;
        let (dtype, rank) = like;
        let mut dims = vec![1; rank];
        dims[1] = 2 * self.channels;
        let inverse = mean.iter().map(|m| 1.0 - m);
        let mean: Vec<f64> = mean.iter().copied().chain(inverse).collect();
        let mean = patch.parameter("mean", weights::tensor(dtype, &dims, &mean));
        let std = patch.parameter("std", weights::tensor(dtype, &dims, &std.repeat(2)));
        let centred = patch.op(Op::new("", "Sub").named("centred"), &[seen, mean]);
        patch.op(Op::new("", "Div").named("normalized"), &[centred, std])
    }
}

/// Adds the doubled source of a first layer: all channels, then all inverses.
fn double(
    model: &mut Model,
    first: &FirstLayer,
    (axis, channels): (usize, u64),
    raw: Option<&Raw>,
) -> Result<Value, PassError> {
    let graph = &model.graph;
    let source = first.source();
    let unknown = || Reason::UnknownShape(graph.value_name(source).to_owned());
    let rank = first.rank(graph).ok_or_else(unknown);
    let rank = rank.map_err(|reason| PassError::unsupported(model, first.node(), reason))?;
    let dtype = first.dtype(graph);
    let mut patch = Patch::at(first.node());
    let x = Operand::Old(source);
    let inverse = match raw {
        None => Some(patch.op(Op::new("", "Neg"), &[x])),
        Some(raw) if raw.inverted_here => {
            let one = patch.parameter("one", weights::tensor(dtype, &[], &[1.0]));
            Some(patch.op(Op::new("", "Sub").named("inverse"), &[one, x]))
        }
        Some(_) => None,
    };
    let concat = Op::new("", "Concat").named("input");
    let mut seen = match inverse {
        Some(inverse) => patch.op(concat.with_int("axis", axis as i64), &[x, inverse]),
        None => x,
    };
    if let Some(raw) = raw.filter(|raw| !raw.absorbed) {
        seen = raw.normalized(&mut patch, seen, (dtype, rank));
    }
    let Operand::New { node, slot } = seen else {
        return Ok(source);
    };
    let shape = graph.value_type(source).and_then(|t| t.shape);
    let shape = shape.map(|mut shape| {
        shape[axis] = Dim::Known(2 * channels);
        shape
    });
    patch.typed(seen, TensorType { dtype, shape });
    patch.keep(seen);
    let node = model.graph.apply(patch)?[node];
    Ok(Value { node, slot })
}

/// Values between the input and the first layer now hold raw pixels, so they no longer stand for the original's.
fn forget_normalised(graph: &mut Graph, image: Value, first_layers: &FirstLayers) {
    graph.forget(image);
    let passed = first_layers.passed.iter().copied();
    for node in passed
        .filter(|&node| graph.contains(node))
        .collect::<Vec<_>>()
    {
        for slot in 0..graph.output_count(node) {
            graph.forget(graph.output(node, slot));
        }
    }
}

fn widen(graph: &mut Graph, image: Value, channels: u64) {
    let Some(TensorType { dtype, shape }) = graph.value_type(image) else {
        return;
    };
    let shape = shape.map(|mut shape| {
        if let Some(axis) = shape.get_mut(1) {
            *axis = Dim::Known(channels);
        }
        shape
    });
    graph.retype_input(image, TensorType { dtype, shape });
}

#[cfg(test)]
mod tests;
