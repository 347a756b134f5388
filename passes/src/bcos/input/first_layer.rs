//! The first linear layers after the input, and their weights for doubled channels.

use std::collections::BTreeSet;
use std::iter;

use bcosc_ir::{DataType, Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Tensors, Value};

use super::double::Halves;
use crate::analysis::layers::{Form, Layer, data_consumers, is_structural};
use crate::analysis::weights::{self, WeightError};
use crate::{Context, PassError, Reason};

/// A linear layer with no other linear layer between it and the input.
#[derive(Clone, Debug)]
pub(crate) struct FirstLayer {
    layer: Layer,
    /// The value to double: channels on axis 1, or vectors along the last axis if there are no structural operators.
    source: Value,
    /// The structural operators between the source and the layer.
    path: Vec<NodeId>,
    /// Number of inputs of one output unit, in its group.
    inputs: u64,
}

/// The first layers of a graph.
pub(crate) struct FirstLayers {
    /// The first layers, in graph order.
    pub layers: Vec<FirstLayer>,
    /// All operators between the input and the first layers.
    pub passed: Vec<NodeId>,
}

/// Maximum number of elements of the image that is run through the structural operators to track channels.
const LARGEST_IMAGE: u64 = 1 << 26;

impl FirstLayers {
    /// Finds the first layers after an input. An error names a node that prevents doubling.
    pub(crate) fn of(graph: &Graph, input: Value) -> Result<Self, (NodeId, Reason)> {
        let mut open = vec![input];
        let mut seen = BTreeSet::new();
        let (mut layers, mut passed) = (Vec::new(), Vec::new());
        while let Some(value) = open.pop() {
            for node in data_consumers(graph, value) {
                if !seen.insert((node, value)) {
                    continue;
                }
                match Layer::of(graph, node) {
                    Some(Ok(layer)) if layer.x == value => {
                        layers.push(FirstLayer::at(graph, layer).map_err(|reason| (node, reason))?);
                    }
                    Some(Err(reason)) => return Err((node, reason)),
                    _ => {
                        passed.push(node);
                        open.extend(
                            (0..graph.output_count(node)).map(|slot| graph.output(node, slot)),
                        );
                    }
                }
            }
        }
        if layers.is_empty() {
            return Err((input.node, Reason::NoLinearLayer));
        }
        layers.sort_by_key(|first| first.layer.node);
        Ok(FirstLayers { layers, passed })
    }
}

impl FirstLayer {
    fn at(graph: &Graph, layer: Layer) -> Result<Self, Reason> {
        let dims = weights::constant_type(graph, layer.w).and_then(|t| t.known_shape());
        let inputs = match (&layer.form, dims.as_deref()) {
            (Form::Conv(conv), _) => conv.weight_dims[1],
            (Form::Gemm(gemm), Some(&[_, inputs])) if gemm.trans_b && !gemm.trans_a => inputs,
            (Form::Gemm(gemm), Some(&[inputs, _])) if !gemm.trans_b && !gemm.trans_a => inputs,
            (Form::RightMatMul, Some(&[inputs, _])) => inputs,
            _ => return Err(Reason::FirstLayerForm),
        };
        let mut first = FirstLayer {
            source: layer.x,
            path: Vec::new(),
            inputs,
            layer,
        };
        if !first.is_conv() {
            while let Some((node, op)) = graph.producer(first.source) {
                if !is_structural(op) {
                    break;
                }
                first.source = graph.input(node, 0).ok_or(Reason::Malformed)?;
                first.path.push(node);
            }
            first.path.reverse();
        }
        Ok(first)
    }

    /// The convolution or matrix product.
    pub(crate) fn node(&self) -> NodeId {
        self.layer.node
    }

    /// The value that is doubled for this layer.
    pub(crate) fn source(&self) -> Value {
        self.source
    }

    /// Whether the node is between the source and this layer.
    pub(crate) fn is_on_path(&self, node: NodeId) -> bool {
        self.path.contains(&node)
    }

    /// Number of inputs of one output unit, in its group.
    pub(crate) fn inputs(&self) -> u64 {
        self.inputs
    }

    /// Element type of the weights.
    pub(crate) fn dtype(&self, graph: &Graph) -> DataType {
        let weight = weights::constant_type(graph, self.layer.w);
        weight.map_or(DataType::Float, |weight| weight.dtype)
    }

    /// Number of the source's axes.
    pub(crate) fn rank(&self, graph: &Graph) -> Option<usize> {
        match &self.layer.form {
            Form::Conv(conv) => Some(conv.window.rank() + 2),
            _ => graph.value_type(self.source)?.rank(),
        }
    }

    fn is_conv(&self) -> bool {
        matches!(self.layer.form, Form::Conv(_))
    }

    /// The doubled axis of the source, and its size.
    pub(crate) fn channels(&self, graph: &Graph) -> Result<(usize, u64), Reason> {
        let unknown = || Reason::UnknownShape(graph.value_name(self.source).to_owned());
        let shape = graph.value_type(self.source).and_then(|t| t.shape);
        if let Form::Conv(conv) = &self.layer.form {
            let contradicts = |shape: Vec<Dim>| shape.len() != conv.window.rank() + 2;
            return match shape.is_some_and(contradicts) {
                true => Err(Reason::FirstLayerForm),
                false => Ok((1, conv.in_channels())),
            };
        }
        let shape = shape.ok_or_else(unknown)?;
        if self.path.is_empty() {
            let axis = shape.len().checked_sub(1).ok_or(Reason::FirstLayerForm)?;
            return Ok((axis, self.inputs));
        }
        let channels = shape.get(1).ok_or(Reason::FirstLayerForm)?;
        Ok((1, channels.known().ok_or_else(unknown)?))
    }

    /// For each input of an output unit in its group, its channel in the source.
    pub(crate) fn input_channels(
        &self,
        model: &Model,
        channels: u64,
        cx: &Context<'_>,
    ) -> Result<Vec<usize>, PassError> {
        if self.is_conv() || self.path.is_empty() {
            return Ok((0..self.inputs as usize).collect());
        }
        if self.flattens(&model.graph) {
            let cells = self.inputs / channels.max(1);
            return Ok((0..self.inputs).map(|i| (i / cells) as usize).collect());
        }
        let fail = |reason| PassError::unsupported(model, self.node(), reason);
        let labels = self.labels(&model.graph, channels).map_err(fail)?;
        let path = model.extract(&[self.source], &[self.layer.x])?;
        let moved = cx.interpreter.run(&path, &labels)?;
        let moved = moved.get(model.graph.value_name(self.layer.x));
        let moved = moved.and_then(|t| t.to_f64s().ok());
        let moved = moved.unwrap_or_default();
        let mut rows = moved.chunks_exact(self.inputs.max(1) as usize);
        match rows.next() {
            Some(first) if rows.all(|row| row == first) => {
                Ok(first.iter().map(|&channel| channel as usize).collect())
            }
            _ => Err(fail(Reason::FirstLayerForm)),
        }
    }

    /// A source whose elements are the index of their channel.
    fn labels(&self, graph: &Graph, channels: u64) -> Result<Tensors, Reason> {
        let name = graph.value_name(self.source).to_owned();
        let found = graph.value_type(self.source);
        let sizes = found.as_ref().and_then(|found| {
            let [batch, others @ ..] = found.shape.as_deref()? else {
                return None;
            };
            let others = others.iter().map(Dim::known);
            iter::once(Some(batch.known().unwrap_or(1)))
                .chain(others)
                .collect()
        });
        let (Some(found), Some(dims)) = (found, sizes) else {
            return Err(Reason::UnknownShape(name));
        };
        let dims: Vec<u64> = dims;
        let count = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let count = count
            .filter(|&n| n <= LARGEST_IMAGE)
            .ok_or(Reason::FirstLayerForm)?;
        let cells = dims[2..].iter().product::<u64>().max(1);
        let labels: Vec<f64> = (0..count).map(|i| (i / cells % channels) as f64).collect();
        let labels = Tensor::floats(found.dtype, &dims, &labels).ok_or(Reason::NotFloating)?;
        Ok(Tensors::from([(name, labels)]))
    }

    /// Whether the structural operators flatten the image in order.
    fn flattens(&self, graph: &Graph) -> bool {
        let in_order = |&node: &NodeId| graph.op(node).is_some_and(|op| !op.is("Transpose"));
        let shape = |value| graph.value_type(value).and_then(|t| t.shape);
        let (Some(from), Some(to)) = (shape(self.source), shape(self.layer.x)) else {
            return false;
        };
        let sizes: Option<Vec<u64>> = from.iter().skip(1).map(Dim::known).collect();
        let whole = sizes.is_some_and(|sizes| {
            sizes.iter().try_fold(1u64, |n, &d| n.checked_mul(d)) == Some(self.inputs)
        });
        to.len() == 2 && whole && self.path.iter().all(in_order)
    }

    /// Connects a doubled source (all channels, then all inverses) to the layer.
    pub(crate) fn feed(
        &self,
        graph: &Graph,
        patch: &mut Patch,
        doubled: Value,
        channels: u64,
    ) -> Operand {
        let seen = Operand::Old(doubled);
        let gather = |patch: &mut Patch, order: Vec<i64>| {
            let order = patch.parameter("channels", Tensor::i64_vec(&order));
            patch.op(Op::new("", "Gather").with_int("axis", 1), &[seen, order])
        };
        let fed = match &self.layer.form {
            Form::Conv(conv) if conv.group > 1 => {
                // Each group needs its own channels and their inverses.
                let order = (0..conv.group)
                    .flat_map(|g| [g * self.inputs, g * self.inputs + channels])
                    .flat_map(|start| start..start + self.inputs);
                gather(patch, order.map(|c| c as i64).collect())
            }
            Form::Conv(_) => seen,
            _ if self.path.is_empty() => seen,
            _ if self.flattens(graph) => {
                patch.op(Op::new("", "Flatten").with_int("axis", 1), &[seen])
            }
            _ => {
                let halves = [0..channels, channels..2 * channels].map(|half| {
                    let half = gather(patch, half.map(|c| c as i64).collect());
                    let again = |x, &node: &NodeId| moved(graph, patch, node, x);
                    self.path.iter().fold(half, again)
                });
                let rank = graph.value_type(self.layer.x).and_then(|t| t.rank());
                let axis = rank.map_or(-1, |rank| rank as i64 - 1);
                patch.op(Op::new("", "Concat").with_int("axis", axis), &halves)
            }
        };
        let axis = |rank: usize| if self.is_conv() { 1 } else { rank - 1 };
        if let Some(mut found) = graph.value_type(self.layer.x) {
            if let Some(shape) = found.shape.as_mut().filter(|s| s.len() > 1) {
                let axis = axis(shape.len());
                shape[axis] = shape[axis]
                    .known()
                    .map_or(Dim::Unknown, |d| Dim::Known(2 * d));
            }
            patch.typed(fed, found);
        }
        fed
    }

    /// Weights for twice the channels: `[w * direct, w * inverse]` for every output unit.
    pub(crate) fn doubled_weight(
        &self,
        graph: &Graph,
        halves: &Halves,
        input_channels: &[usize],
    ) -> Result<Tensor, WeightError> {
        let stored = weights::floats(graph, self.layer.w)?;
        let (axis, group) = match &self.layer.form {
            Form::Conv(conv) => (1, conv.group),
            Form::Gemm(gemm) if gemm.trans_b => (1, 1),
            _ => (0, 1),
        };
        let outer: u64 = stored.dims[..axis].iter().product();
        let inner: u64 = stored.dims[axis + 1..].iter().product();
        let block = (self.inputs * inner) as usize;
        if block == 0 || input_channels.len() as u64 != self.inputs {
            return Err(Reason::FirstLayerForm.into());
        }
        let mut elements = Vec::with_capacity(stored.elements.len() * 2);
        for (unit, weights) in stored.elements.chunks_exact(block).enumerate() {
            let first = (unit as u64 / (outer / group).max(1) * self.inputs) as usize;
            for half in 0..2 {
                let by_input = weights.chunks_exact(inner as usize).zip(input_channels);
                for (weights, channel) in by_input {
                    let factor = halves.factors(first + channel)[half];
                    elements.extend(weights.iter().map(|w| w * factor));
                }
            }
        }
        let mut dims = stored.dims.clone();
        dims[axis] *= 2;
        Ok(stored.shaped(&dims, &elements))
    }
}

/// A structural operator on another first operand.
fn moved(graph: &Graph, patch: &mut Patch, node: NodeId, x: Operand) -> Operand {
    let Some(op) = graph.op(node) else { return x };
    let others = graph.inputs_of(node).into_iter().skip(1);
    let inputs: Vec<Option<Operand>> = iter::once(Some(x))
        .chain(others.map(|operand| operand.map(Operand::Old)))
        .collect();
    patch.multi_op(op.clone().named("moved"), &inputs, 1)
}
