//! Carries biases: each becomes the weight of a channel that is 1 for every image and linear in it.
//!
//! x and 1-x add up to 1, so the mean of the 2C doubled channels, times 2, is the constant `u [N, 1, H, W]`, and still part
//! of W(x)x. A bias b then is a weight on u, and contributions explain it like all others:
//!
//! ```text
//! y = Conv (x, w, b)
//! y = Add (Conv (x, w), Conv (u', b))             b [C, 1, 1, 1], u' [N, 1, H', W']
//!
//! y = Add (MatMul (x, w), b)
//! y = Add (MatMul (x, w), MatMul (u'', b))        b [1, C], u'' [N, 1, 1]
//! ```
//!
//! u' is u after average pools with the windows of the layers between, not counting padding, so that its sizes are always
//! those of y; layers of one resolution share it. Where other operators move or mix positions, u'' is the mean over
//! positions. The norm of a B-cos layer's input counts the constant too: a bias left out there could outweigh an input that is near
//! 0 without limit.
//!
//! The mean of a normalisation in the graph is multiplied by u likewise. Biases whose shape fits no form of the constant are
//! kept.

mod forms;
mod rules;
mod windows;
mod write;

use bcosc_ir::views::Gemm;
use bcosc_ir::{DataType, Graph, Model, NodeId, Op, Operand, Patch, Value};

use crate::analysis::carried;
use crate::analysis::image::image_input;
use crate::analysis::layers::Layer;
use crate::analysis::weights::{self, WeightError};
use crate::bcos::biases::{clear_norm, drop_operand, find};
use crate::{Biases, Context, Effect, InputContract, Outcome, Pass, PassError, Reason};
use write::Channel;

/// The pass.
pub static CARRY_BIASES: Pass = Pass {
    name: "carry-biases",
    summary: "with --biases carry: make biases weights of x + (1-x)",
    effect: Effect::Exact,
    requires: &[&crate::bcos::norms::uncentre::UNCENTRE_NORMS],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if cx.settings.biases() != Biases::Carry {
        return Ok(outcome);
    }
    let inputs = model.graph.inputs().len();
    let image =
        image_input(&model.graph).ok_or(PassError::Model(Reason::NoImageInput { inputs }))?;
    let doubled = doubled(&model.graph, image, cx.settings.input).map_err(PassError::Model)?;
    let biases = find::places(&model.graph, &|_| true)?;
    let mut channel = Channel::of(model, image, doubled).ok_or_else(|| {
        let name = model.graph.value_name(image).to_owned();
        PassError::Model(Reason::UnknownShape(name))
    })?;
    for node in means(&model.graph, doubled) {
        if carry_mean(model, &mut channel, node)? {
            outcome.changed(model.graph.label(node), "mean carried by the input");
        }
    }
    for node in model.graph.ops() {
        for &(_, slot) in biases.range((node, 0)..=(node, u32::MAX)) {
            match carry(model, &mut channel, node, slot)? {
                Ok(false) => {}
                Ok(true) => outcome.changed(model.graph.label(node), "bias carried by the input"),
                Err(error) => error.skip_or_fail(&model.graph, node, &mut outcome)?,
            }
        }
    }
    Ok(outcome)
}

/// The value with the channels [x, 1-x].
fn doubled(graph: &Graph, image: Value, input: InputContract) -> Result<Value, Reason> {
    match input {
        InputContract::Same => Err(Reason::NoConstant),
        InputContract::AddInverse => Ok(image),
        InputContract::Rgb => {
            let pair = carried::pair(graph, image).ok_or(Reason::NoConstant)?;
            Ok(graph.output(pair, 0))
        }
    }
}

/// The nodes that subtract the mean of a normalisation from the doubled channels.
fn means(graph: &Graph, doubled: Value) -> Vec<NodeId> {
    let subtracts = |node: &NodeId| {
        let mean = graph.input(*node, 1).and_then(|mean| graph.constant(mean));
        let from = graph.input(*node, 0) == Some(doubled);
        from && mean.is_some() && graph.op(*node).is_some_and(|op| op.is("Sub"))
    };
    graph.ops().into_iter().filter(subtracts).collect()
}

/// Multiplies a mean by the constant: it is no bias, but would be left over as well.
fn carry_mean(model: &mut Model, channel: &mut Channel, node: NodeId) -> Result<bool, PassError> {
    let image = channel.write(model, 0, node)?;
    let Some(mean) = model.graph.input(node, 1) else {
        return Ok(false);
    };
    let mut patch = Patch::at(node);
    let product = patch.op(
        Op::new("", "Mul").named("mean"),
        &[image.into(), mean.into()],
    );
    patch.set_input(node, 1, Some(product));
    model.graph.apply(patch)?;
    Ok(true)
}

/// Makes a bias a weight; false if there is none.
fn carry(
    model: &mut Model,
    channel: &mut Channel,
    node: NodeId,
    slot: u32,
) -> Result<Result<bool, WeightError>, PassError> {
    let graph = &model.graph;
    let mut patch = Patch::at(node);
    let y = Value { node, slot: 0 };
    let is_sum = graph
        .op(node)
        .is_some_and(|op| op.is("Add") || op.is("Sub"));
    let weight = match is_sum {
        true => summand(graph, channel, node, slot),
        false => own(
            graph,
            channel,
            node,
            model.opset("").unwrap_or(0),
            &mut patch,
        ),
    };
    let weight = match weight {
        Ok(Some(weight)) => weight,
        Ok(None) => return Ok(Ok(false)),
        Err(error) => return Ok(Err(error)),
    };
    let constant = channel.write(model, weight.form, node)?;
    let constant = in_type(&mut patch, constant.into(), channel.dtype(), weight.dtype);
    let weighed = weight.write(&mut patch, constant);
    if is_sum {
        patch.set_input(node, slot, Some(weighed));
    } else {
        let sum = patch.op(Op::new("", "Add").named("biased"), &[y.into(), weighed]);
        if let Some(found) = model.graph.value_type(y) {
            patch.typed(sum, found);
        }
        patch.replace(y, sum);
        let added = model.graph.apply(patch)?;
        // A sum behind the layer may add another bias to it.
        if let Some(sum) = sum.applied(&added) {
            channel.forms.same(sum, y);
        }
        return Ok(Ok(true));
    }
    model.graph.apply(patch)?;
    Ok(Ok(true))
}

/// A constant that a sum adds to data.
fn summand(
    graph: &Graph,
    channel: &mut Channel,
    node: NodeId,
    slot: u32,
) -> Result<Option<Weight>, WeightError> {
    let (Some(data), Some(constant)) = (graph.input(node, 1 - slot), graph.input(node, slot))
    else {
        return Ok(None);
    };
    let bias = weights::floats(graph, constant)?;
    Weight::of(channel, data, bias.dtype, &bias.dims, bias.elements).map(Some)
}

/// The bias operand of a layer or a norm, which the patch removes; `None` if that of a norm is zero, since norms do not
/// need one.
fn own(
    graph: &Graph,
    channel: &mut Channel,
    node: NodeId,
    opset: i64,
    patch: &mut Patch,
) -> Result<Option<Weight>, WeightError> {
    let constant = graph.input(node, 2).ok_or(Reason::DynamicBias)?;
    let mut bias = weights::floats(graph, constant)?;
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    let y = Value { node, slot: 0 };
    let (removed, behind) = match Layer::of(graph, node) {
        Some(layer) => {
            let layer = layer?;
            let units = layer.units(graph).ok_or(Reason::Malformed)?;
            if let Some(gemm) = Gemm::of(graph, node) {
                bias.elements
                    .iter_mut()
                    .for_each(|b| *b *= f64::from(gemm.beta));
            }
            (drop_operand(graph, &layer, opset, patch)?, units.behind)
        }
        None => {
            if bias.elements.iter().all(|&b| b == 0.0) {
                return Ok(None);
            }
            let units = find::norm_units(graph, node).ok_or(Reason::NormShape)?;
            (clear_norm(graph, node, opset, patch)?, units.behind)
        }
    };
    if op.is("GroupNormalization") {
        bias.elements = by_channel(graph, y, bias.elements)?;
        bias.dims = vec![bias.elements.len() as u64];
    }
    bias.dims.extend(vec![1; behind]);
    let weight = Weight::of(channel, y, bias.dtype, &bias.dims, bias.elements)?;
    Ok(removed.then_some(weight))
}

/// The bias of every channel, where a group norm has one per group (up to opset 20).
fn by_channel(graph: &Graph, y: Value, elements: Vec<f64>) -> Result<Vec<f64>, Reason> {
    let channels = graph.value_type(y).and_then(|t| t.shape?.get(1)?.known());
    let unknown = || Reason::UnknownShape(graph.value_name(y).to_owned());
    let each = channels.ok_or_else(unknown)? as usize / elements.len().max(1);
    let repeated = elements.into_iter().flat_map(|b| vec![b; each]);
    Ok(repeated.collect())
}

/// A bias as a weight of a form of the constant.
struct Weight {
    form: usize,
    product: Product,
    dtype: DataType,
    dims: Vec<u64>,
    elements: Vec<f64>,
}

/// How the constant and a bias are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    /// Units on axis 1 of an image.
    Conv,
    /// Units on the last axis.
    MatMul,
    /// Units on other axes.
    Mul,
}

impl Weight {
    /// The weight for a bias that broadcasts to a value.
    fn of(
        channel: &mut Channel,
        value: Value,
        dtype: DataType,
        dims: &[u64],
        elements: Vec<f64>,
    ) -> Result<Self, WeightError> {
        let form = channel.forms.get(value).ok_or(Reason::NotCarried)?;
        let wide = channel.forms.form(form).wide.clone();
        let rank = wide.len();
        let axes = dims.iter().rev().enumerate().filter(|(_, d)| **d > 1);
        let units: Vec<usize> = axes.map(|(behind, _)| behind).collect();
        let product = match units[..] {
            [0] if rank > 1 => Product::MatMul,
            [behind] if rank > 2 && behind + 2 == rank => Product::Conv,
            // One number for all units.
            [] if rank > 1 && !wide[rank - 1] => Product::MatMul,
            [] if rank > 2 && !wide[1] => Product::Conv,
            _ => Product::Mul,
        };
        let count = elements.len() as u64;
        let (units, dims) = match product {
            Product::Conv => (vec![1], [vec![count], vec![1; rank - 1]].concat()),
            Product::MatMul => (vec![rank - 1], vec![1, count]),
            Product::Mul => (Vec::new(), dims.to_vec()),
        };
        let form = channel.forms.mean(form, &units).ok_or(Reason::NotCarried)?;
        Ok(Weight {
            form,
            product,
            dtype,
            dims,
            elements,
        })
    }

    /// The product with the constant.
    fn write(&self, patch: &mut Patch, constant: Operand) -> Operand {
        let weight = weights::tensor(self.dtype, &self.dims, &self.elements);
        let weight = patch.parameter("bias", weight);
        let op_type = match self.product {
            Product::Conv => "Conv",
            Product::MatMul => "MatMul",
            Product::Mul => "Mul",
        };
        patch.op(Op::new("", op_type).named("carried"), &[constant, weight])
    }
}

fn in_type(patch: &mut Patch, x: Operand, from: DataType, to: DataType) -> Operand {
    if from == to {
        return x;
    }
    let cast = Op::new("", "Cast").named("constant");
    patch.op(cast.with_int("to", to.to_i32().into()), &[x])
}

#[cfg(test)]
mod tests;
