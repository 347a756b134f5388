//! Which images the target keeps in blocks of channels.
//!
//! Convolutions, pools, concatenation, sums, activations and products of equal shapes work on blocks. For
//! everything else, ONNX Runtime reorders the image first and, where a convolution follows, back afterwards.
//! [`Blocks`] has the images that are in blocks, so that rules can choose the form that leaves them there.

use std::collections::BTreeMap;

use bcosc_ir::views::Conv;
use bcosc_ir::{DataType, Dim, Graph, NodeId, Op, Value};

use super::target::OnnxRuntimeCpu;
use crate::dialect::Weigh;

/// The images in blocks of channels.
#[derive(Debug, Default)]
pub(crate) struct Blocks(BTreeMap<Value, Image>);

/// An image in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Image {
    channels: u64,
    /// A value with the same positions.
    grid: Value,
}

impl Blocks {
    /// Finds the images in blocks of a graph, starting at convolutions.
    pub fn of(graph: &Graph) -> Self {
        let mut blocks = Blocks::default();
        for node in graph.ops() {
            let y = Value { node, slot: 0 };
            if let Some(image) = blocks.output_of(graph, node) {
                blocks.0.insert(y, image);
            }
        }
        blocks
    }

    /// Whether a value is in blocks.
    pub fn has(&self, value: Value) -> bool {
        self.0.contains_key(&value)
    }

    /// Channels of a value in blocks, if they fill all blocks: a depthwise convolution then works on it directly.
    pub fn filled(&self, value: Value) -> Option<u64> {
        let channels = self.0.get(&value)?.channels;
        Some(channels).filter(|channels| channels.is_multiple_of(OnnxRuntimeCpu::BLOCK))
    }

    /// Records that one value replaced another.
    pub fn replaced(&mut self, old: Value, new: Value) {
        if let Some(image) = self.0.get(&old).copied() {
            self.0.insert(new, image);
        }
    }

    fn output_of(&self, graph: &Graph, node: NodeId) -> Option<Image> {
        if let Some(weigh) = Weigh::of(graph, node) {
            let plain = weigh.group == 1 && weigh.spatial == 2;
            return self.0.get(&weigh.x).copied().filter(|_| plain);
        }
        let op = graph.op(node)?;
        let y = Value { node, slot: 0 };
        let x = graph.input(node, 0)?;
        let of_x = self.0.get(&x).copied();
        let on_a_new_grid = |channels| Image { channels, grid: y };
        let is = |of: &[&str]| of.contains(&op.op_type());
        match op.op_type() {
            _ if !op.domain().is_empty() => None,
            "Conv" => convolved(graph, node).map(on_a_new_grid),
            _ if is(OnnxRuntimeCpu::BLOCKED_POOLS) => {
                of_x.map(|image| on_a_new_grid(image.channels))
            }
            _ if is(OnnxRuntimeCpu::BLOCKED_ACTIVATIONS) => of_x,
            // After the depthwise convolution that `keep_blocked_layout.rs` adds.
            _ if is(OnnxRuntimeCpu::FUSED_ACTIVATIONS) => {
                self.filled(x)?;
                of_x
            }
            _ if is(OnnxRuntimeCpu::BLOCKED_ARITHMETIC) => {
                let other = self.0.get(&graph.input(node, 1)?)?;
                of_x.filter(|image| same_shape(graph, image, other))
            }
            "Concat" if op.get("axis") == Some(1_i64) => {
                let parts = graph.inputs_of(node).into_iter();
                let channels = parts.map(|part| self.filled(part?)).sum::<Option<u64>>()?;
                Some(on_a_new_grid(channels))
            }
            _ => None,
        }
    }
}

/// Output channels of a convolution on an image, if its kernel works on blocks.
fn convolved(graph: &Graph, node: NodeId) -> Option<u64> {
    let conv = Conv::of(graph, node)?;
    let weights = graph.constant(conv.w)?;
    let (each_in, each_out) = (conv.weight_dims[1], conv.out_channels() / conv.group);
    let fills = |channels: u64| channels.is_multiple_of(OnnxRuntimeCpu::BLOCK);
    let depthwise = each_in == 1 && each_out == 1 && fills(conv.group);
    let fits = conv.group == 1 || depthwise || fills(each_in) && fills(each_out);
    let image = conv.window.rank() == 2 && weights.dtype() == DataType::Float;
    (image && fits).then(|| conv.out_channels())
}

fn same_shape(graph: &Graph, a: &Image, b: &Image) -> bool {
    let shape = |image: &Image| graph.value_type(image.grid)?.shape;
    let equal = || {
        let (Some(a), Some(b)) = (shape(a), shape(b)) else {
            return false;
        };
        !a.contains(&Dim::Unknown) && a.get(2..) == b.get(2..)
    };
    a.channels == b.channels && (a.grid == b.grid || equal())
}

/// Whether a value comes from a convolution that nothing else reads: the target fuses what follows into it.
pub(crate) fn is_own_convolution(graph: &Graph, value: Value) -> bool {
    let conv = |(_, op): (NodeId, &Op)| op.is("Conv");
    graph.producer(value).is_some_and(conv) && graph.uses(value).len() == 1
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::Blocks;
    use crate::deploy::testing::image;
    use crate::testing::{Layers, inferred};

    /// Which of the named values are in blocks.
    fn in_blocks<'n>(builder: ModelBuilder, names: &[&'n str]) -> Vec<&'n str> {
        let model = inferred(builder);
        let blocks = Blocks::of(&model.graph);
        let lies = |name: &&str| {
            let value = model.graph.value_named(name);
            value.is_some_and(|value| blocks.has(value))
        };
        names.iter().copied().filter(lies).collect()
    }

    #[test]
    fn products_of_equal_shapes_stay_in_blocks() {
        let two = image().conv("x", "a", &[16, 3, 1, 1], []);
        let two = two
            .conv("x", "b", &[16, 3, 1, 1], [])
            .op("Mul", &["a", "b"], "ab", []);
        // As a squeeze-excite gate is: one position for all.
        let pooled = two.op("GlobalAveragePool", &["a"], "p", []);
        let gated = pooled
            .conv("p", "g", &[16, 16, 1, 1], [])
            .op("Mul", &["a", "g"], "ag", []);
        let names = ["x", "a", "ab", "p", "g", "ag"];
        let found = in_blocks(gated.output("ab").output("ag"), &names);
        assert_eq!(found, ["a", "ab", "p", "g"]);
    }

    #[test]
    fn concatenation_needs_filled_blocks() {
        let parts = image().conv("x", "a", &[16, 3, 1, 1], []);
        let parts = parts.conv("x", "b", &[24, 3, 1, 1], []);
        let axis = || [Attribute::int("axis", 1)];
        let joined =
            parts
                .op("Concat", &["a", "a"], "aa", axis())
                .op("Concat", &["a", "b"], "ab", axis());
        let found = in_blocks(joined.output("aa").output("ab"), &["b", "aa", "ab"]);
        assert_eq!(found, ["b", "aa"]);
    }

    #[test]
    fn groups_of_few_channels_leave_blocks() {
        let grouped = |group| [Attribute::int("group", group)];
        let layers = image().conv("x", "a", &[32, 3, 1, 1], []);
        let layers = layers.conv("a", "each", &[32, 1, 3, 3], grouped(32));
        let layers = layers.conv("a", "halves", &[32, 16, 1, 1], grouped(2));
        let layers = layers.conv("a", "quarters", &[32, 8, 1, 1], grouped(4));
        let outputs = layers.output("each").output("halves").output("quarters");
        let found = in_blocks(outputs, &["each", "halves", "quarters"]);
        assert_eq!(found, ["each", "halves"]);
    }
}
