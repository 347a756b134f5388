//! Decides which images to split, and into how many chunks.

use std::collections::BTreeMap;

use bcosc_ir::views::Conv;
use bcosc_ir::{DataType, Graph, NodeId, TensorType, Use, Value};
use petgraph::unionfind::UnionFind;

use crate::deploy::target::OnnxRuntimeCpu;
use crate::{Outcome, Reason};

/// Elementwise operators.
const ELEMENTWISE: &[&str] = &[
    "Abs",
    "Add",
    "Clip",
    "Div",
    "LeakyRelu",
    "Mul",
    "Reciprocal",
    "Relu",
    "Sqrt",
];
/// Operators on single channels.
const POOLS: &[&str] = &["AveragePool", "MaxPool"];

/// How an operator treats channels.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Role {
    /// Each by itself; the image operands, by slot. All others are the same for every channel.
    Each(Vec<u32>),
    /// A depthwise convolution.
    Depthwise(Conv),
    /// A convolution in which every output depends on all input channels.
    Mixing(Conv),
}

impl Role {
    /// Views an operator on images whose types are known.
    pub fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let op = graph.op(node).filter(|op| op.domain().is_empty())?;
        if let Some(conv) = Conv::of(graph, node) {
            let known = |value: Value| graph.constant(value).is_some();
            let fixed = known(conv.w) && conv.bias.is_none_or(known);
            let depthwise = conv.weight_dims[1] == 1 && conv.out_channels() == conv.group;
            return match conv.group {
                _ if !fixed => None,
                1 => Some(Role::Mixing(conv)),
                _ => depthwise.then_some(Role::Depthwise(conv)),
            };
        }
        if POOLS.contains(&op.op_type()) && graph.output_count(node) == 1 {
            return Some(Role::Each(vec![0]));
        }
        if !ELEMENTWISE.contains(&op.op_type()) {
            return None;
        }
        let channels = Image::of(graph, Value { node, slot: 0 })?.channels;
        let mut images = Vec::new();
        for (slot, operand) in graph.inputs_of(node).into_iter().enumerate() {
            let Some(operand) = operand else { continue };
            match Image::of(graph, operand) {
                Some(image) if image.channels == channels => images.push(slot as u32),
                _ if is_one_channel(graph, operand) => {}
                _ => return None,
            }
        }
        Some(Role::Each(images))
    }

    /// The slots of the operands that are split if the output is: all of them or none.
    fn together(&self) -> &[u32] {
        match self {
            Role::Each(slots) => slots,
            Role::Depthwise(_) => &[0],
            Role::Mixing(_) => &[],
        }
    }

    /// Whether the operator can read an operand in chunks.
    fn reads(&self, slot: u32) -> bool {
        match self {
            Role::Each(slots) => slots.contains(&slot),
            Role::Depthwise(_) | Role::Mixing(_) => slot == 0,
        }
    }
}

/// A value of shape `[N, C, H, W]` in single precision.
struct Image {
    channels: u64,
    /// Of one image.
    bytes: u64,
}

impl Image {
    fn of(graph: &Graph, value: Value) -> Option<Self> {
        let TensorType { dtype, shape } = graph.value_type(value)?;
        let [_, rest @ ..] = &shape?[..] else {
            return None;
        };
        let [channels, height, width] = [rest.first()?, rest.get(1)?, rest.get(2)?];
        let (channels, height, width) = (channels.known()?, height.known()?, width.known()?);
        let elements = channels.checked_mul(height)?.checked_mul(width)?;
        let bytes = elements.checked_mul(4)?;
        (rest.len() == 3 && dtype == DataType::Float).then_some(Image { channels, bytes })
    }

    /// The smallest number of chunks that fit the cache; `None` if the whole image fits.
    fn chunks(&self) -> Option<Result<usize, Reason>> {
        let count = self
            .bytes
            .div_ceil(OnnxRuntimeCpu::CACHE_BYTES)
            .next_power_of_two();
        let whole = self.channels.is_multiple_of(count * OnnxRuntimeCpu::BLOCK);
        (count > 1).then(|| {
            match whole && self.channels / count >= OnnxRuntimeCpu::FEWEST_OUTPUTS {
                true => Ok(count as usize),
                false => Err(Reason::WideChunks),
            }
        })
    }
}

/// Whether an operand is the same for every channel of an image.
fn is_one_channel(graph: &Graph, value: Value) -> bool {
    let shape = graph.value_type(value).and_then(|t| t.shape);
    shape.is_some_and(|shape| match shape.len() {
        0..3 => shape.is_empty() || graph.constant(value).is_some_and(|t| t.len() == 1),
        rank => rank <= 4 && shape[rank - 3].known() == Some(1),
    })
}

/// The images that are split.
#[derive(Debug, Default)]
pub(super) struct Plan {
    chunks: BTreeMap<Value, usize>,
    roles: BTreeMap<NodeId, Role>,
}

impl Plan {
    /// Decides for a graph with known types, and reports the decisions.
    pub fn of(graph: &Graph, outcome: &mut Outcome) -> Self {
        let ops = graph.ops();
        let roles = ops
            .iter()
            .filter_map(|&node| Some((node, Role::of(graph, node)?)));
        let mut plan = Plan {
            roles: roles.collect(),
            chunks: BTreeMap::new(),
        };
        for images in plan.related(graph, &ops) {
            let Some((label, decision)) = plan.decide(graph, &images) else {
                continue;
            };
            match decision {
                Err(reason) => outcome.skipped(label, reason),
                Ok(chunks) => {
                    outcome.changed(label, format!("split into {chunks} chunks of channels"));
                    let chunked = images.into_iter().map(|value| (value, chunks));
                    plan.chunks.extend(chunked);
                }
            }
        }
        plan
    }

    /// How an operator treats channels.
    pub fn role(&self, node: NodeId) -> Option<&Role> {
        self.roles.get(&node)
    }

    /// The number of chunks of a value; 1 if it is not split.
    pub fn chunks(&self, value: Value) -> usize {
        self.chunks.get(&value).copied().unwrap_or(1)
    }

    /// Images that must be split alike, because operators on single channels connect them.
    fn related(&self, graph: &Graph, ops: &[NodeId]) -> Vec<Vec<Value>> {
        let mut numbers: BTreeMap<Value, usize> = BTreeMap::new();
        let mut links = Vec::new();
        for &node in ops {
            let slots = self.role(node).map_or(&[][..], Role::together);
            let operands = slots.iter().filter_map(|&slot| graph.input(node, slot));
            let y = Value { node, slot: 0 };
            for value in operands {
                let [a, b] = [y, value].map(|value| {
                    let next = numbers.len();
                    *numbers.entry(value).or_insert(next)
                });
                links.push((a, b));
            }
        }
        let mut sets = UnionFind::new(numbers.len());
        for (a, b) in links {
            sets.union(a, b);
        }
        let mut images: BTreeMap<usize, Vec<Value>> = BTreeMap::new();
        for (&value, &number) in &numbers {
            images.entry(sets.find(number)).or_default().push(value);
        }
        images.into_values().collect()
    }

    /// The number of chunks of related images, and their source; `None` if all fit the cache.
    fn decide(&self, graph: &Graph, images: &[Value]) -> Option<(String, Result<usize, Reason>)> {
        let sizes = images
            .iter()
            .filter_map(|&value| Some((value, Image::of(graph, value)?)));
        let (widest, image) = sizes.max_by_key(|(_, image)| image.bytes)?;
        let chunks = image.chunks()?;
        let decision = chunks.and_then(|chunks| self.check(graph, images).map(|()| chunks));
        Some((graph.label(widest.node), decision))
    }

    /// Whether the producers and consumers of some images can work on chunks.
    fn check(&self, graph: &Graph, images: &[Value]) -> Result<(), Reason> {
        for &value in images {
            let reads = |usage: Use| match usage {
                Use::Input { node, slot } => self.role(node).is_some_and(|role| role.reads(slot)),
                Use::Capture { .. } | Use::Output(_) => false,
            };
            let known = self.roles.contains_key(&value.node);
            if !known || !graph.uses(value).into_iter().all(reads) {
                return Err(Reason::NotByChannel(graph.value_name(value).to_owned()));
            }
        }
        Ok(())
    }
}
