//! The layers that see the input first, and how their weights take twice the channels.

use std::collections::BTreeSet;

use bcosc_ir::{Graph, NodeId, Op, Operand, Patch, Tensor, Use, Value};

use super::double_input::Halves;
use crate::Reason;
use crate::layer::{Form, Layer};
use crate::weights;

/// A linear layer that the input reaches without passing another one.
#[derive(Debug)]
pub(crate) struct FirstLayer {
    layer: Layer,
    /// The value with channels on axis 1 that the layer sees, flattened or not.
    source: Value,
    /// The node that flattens `source` into the rows of a matrix product.
    flatten: Option<NodeId>,
}

/// Finds the first layers behind an input. An error names the node that stands in the way.
pub(crate) fn first_layers(
    graph: &Graph,
    input: Value,
) -> Result<Vec<FirstLayer>, (NodeId, Reason)> {
    let mut open = vec![input];
    let mut seen = BTreeSet::from([input]);
    let mut found: Vec<FirstLayer> = Vec::new();
    while let Some(value) = open.pop() {
        for usage in graph.uses(value) {
            let (Use::Input { node, .. } | Use::Capture { node, .. }) = usage else {
                continue;
            };
            match Layer::of(graph, node) {
                Some(Ok(layer)) if layer.x == value => {
                    found.push(FirstLayer::at(graph, layer).map_err(|reason| (node, reason))?);
                }
                Some(Err(reason)) => return Err((node, reason)),
                _ => {
                    let outputs =
                        (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
                    open.extend(outputs.filter(|v| seen.insert(*v)));
                }
            }
        }
    }
    if found.is_empty() {
        return Err((input.node, Reason::NoLinearLayer));
    }
    found.sort_by_key(|first| first.layer.node);
    Ok(found)
}

impl FirstLayer {
    fn at(graph: &Graph, layer: Layer) -> Result<Self, Reason> {
        if let Form::Conv(_) = layer.form {
            return Ok(FirstLayer {
                source: layer.x,
                flatten: None,
                layer,
            });
        }
        let unsupported = || Reason::FirstLayerForm;
        let flatten = layer.x.node;
        let op = graph
            .op(flatten)
            .filter(|op| op.is("Flatten") || op.is("Reshape"))
            .ok_or_else(unsupported)?;
        let source = graph.input(flatten, 0).ok_or(Reason::Malformed)?;
        let whole_image = match (graph.value_type(layer.x), op.is("Flatten")) {
            (_, true) => op.int("axis", 1) == 1,
            (Some(flat), false) => flat.rank() == Some(2),
            (None, false) => false,
        };
        let plain = match &layer.form {
            Form::Gemm(gemm) => !gemm.trans_a,
            Form::RightMatMul => true,
            Form::Conv(_) | Form::LeftMatMul => false,
        };
        if !(whole_image && plain) {
            return Err(unsupported());
        }
        Ok(FirstLayer {
            layer,
            source,
            flatten: Some(flatten),
        })
    }

    /// The node that multiplies.
    pub(crate) fn node(&self) -> NodeId {
        self.layer.node
    }

    /// The value with channels on axis 1 that the layer sees.
    pub(crate) fn source(&self) -> Value {
        self.source
    }

    /// Whether a node is where this layer takes the source in.
    pub(crate) fn reads_first(&self, node: NodeId) -> bool {
        node == self.flatten.unwrap_or(self.layer.node)
    }

    /// Leads a doubled source to the layer.
    pub(crate) fn feed(&self, graph: &Graph, patch: &mut Patch, doubled: Operand) {
        let mut seen = doubled;
        match (&self.layer.form, self.flatten) {
            (_, Some(_)) => seen = patch.op(Op::new("", "Flatten").with_int("axis", 1), &[seen]),
            (Form::Conv(conv), None) if conv.group > 1 => {
                // Each group takes its own channels and their inverses.
                let per_group = graph
                    .value_type(conv.w)
                    .and_then(|t| t.known_shape())
                    .map_or(1, |d| d[1] / 2);
                let total = per_group * conv.group;
                let order: Vec<i64> = (0..conv.group)
                    .flat_map(|g| {
                        let own = g * per_group..(g + 1) * per_group;
                        own.clone()
                            .chain(own.map(|c| c + total))
                            .collect::<Vec<_>>()
                    })
                    .map(|c| c as i64)
                    .collect();
                let order = patch.parameter("channels", Tensor::i64_vec(&order));
                seen = patch.op(Op::new("", "Gather").with_int("axis", 1), &[seen, order]);
            }
            _ => {}
        }
        patch.set_input(self.layer.node, 0, Some(seen));
    }

    /// Gives the layer weights for twice the channels.
    pub(crate) fn doubled(&self, graph: &Graph, halves: &Halves) -> Result<Patch, Reason> {
        let stored = weights::floats(graph, self.layer.w).map_err(|_| Reason::DynamicWeight)?;
        let mut patch = Patch::at(self.layer.node);
        // Weights are [outer, channels * cells, inner]: one run of cells a channel.
        let (outer, per_outer, inner, axis) = match &self.layer.form {
            Form::Conv(conv) => {
                let channels = stored.dims[1];
                let cells = stored.dims[2..].iter().product::<u64>();
                (conv.out_channels(), channels * cells, 1, 1)
            }
            Form::Gemm(gemm) if gemm.trans_b => (stored.dims[0], stored.dims[1], 1, 1),
            Form::Gemm(_) | Form::RightMatMul if stored.dims.len() == 2 => {
                (1, stored.dims[0], stored.dims[1], 0)
            }
            _ => return Err(Reason::FirstLayerForm),
        };
        let group = match &self.layer.form {
            Form::Conv(conv) => conv.group,
            _ => 1,
        };
        let channels_per_group = halves.direct.len() as u64 / group;
        if channels_per_group == 0 || per_outer % channels_per_group != 0 {
            return Err(Reason::FirstLayerForm);
        }
        let run = per_outer / channels_per_group * inner;
        let outer_per_group = (outer / group).max(1);
        let mut elements = Vec::with_capacity(stored.elements.len() * 2);
        for (o, block) in stored
            .elements
            .chunks_exact((per_outer * inner) as usize)
            .enumerate()
        {
            let first_channel = (o as u64 / outer_per_group * channels_per_group) as usize;
            for factors in [&halves.direct, &halves.inverse] {
                for (c, cells) in block.chunks_exact(run as usize).enumerate() {
                    elements.extend(cells.iter().map(|w| w * factors[first_channel + c]));
                }
            }
        }
        let mut dims = stored.dims.clone();
        dims[axis] *= 2;
        let weight = patch.parameter("weight", stored.shaped(&dims, &elements));
        patch.set_input(self.layer.node, 1, Some(weight));
        Ok(patch)
    }
}
