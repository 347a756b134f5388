//! Which axes of a value hold channels: one element for every unit of a layer before it.
//!
//! A constant with one element per channel is a bias; one with an element per position is a position embedding.
//! Shapes alone cannot distinguish them, so channel axes are propagated from the layers. Axes are counted from the
//! end, since shapes broadcast from there.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::ops::Trait;
use bcosc_ir::{Graph, NodeId, Shape, Value};

use crate::analysis::layers::Layer;
use crate::analysis::raise::{Kind, Raised};
use crate::dialect::Scale;

/// The channel axes of values, each as the number of axes after it.
pub struct Channels<'g> {
    graph: &'g Graph,
    axes: BTreeMap<Value, BTreeSet<usize>>,
    /// Outputs of decomposed group norms, which reshape channels into groups and back.
    regrouped: BTreeSet<Value>,
}

impl<'g> Channels<'g> {
    /// Propagates channel axes through a graph with known types.
    pub fn of(graph: &'g Graph) -> Self {
        let raised = Raised::of(graph);
        let regrouped = raised.norms().filter(|norm| norm.kind == Kind::GroupNorm);
        let mut channels = Channels {
            graph,
            axes: BTreeMap::new(),
            regrouped: regrouped.map(|norm| norm.out).collect(),
        };
        for node in graph.ops() {
            let found = channels.behind(node);
            if !found.is_empty() {
                for slot in 0..graph.output_count(node) {
                    channels
                        .axes
                        .insert(graph.output(node, slot), found.clone());
                }
            }
        }
        channels
    }

    /// Whether an axis of a value, counted from the end, holds channels.
    pub fn has(&self, value: Value, behind: usize) -> bool {
        self.axes
            .get(&value)
            .is_some_and(|axes| axes.contains(&behind))
    }

    fn behind(&self, node: NodeId) -> BTreeSet<usize> {
        if let Some(Ok(layer)) = Layer::of(self.graph, node) {
            return layer
                .units(self.graph)
                .into_iter()
                .map(|units| units.behind)
                .collect();
        }
        let value = self.graph.output(node, 0);
        let Some(out) = self.shape(value) else {
            return BTreeSet::new();
        };
        if self.regrouped.contains(&value) {
            return out.len().checked_sub(2).into_iter().collect();
        }
        let operands = self.graph.inputs_of(node).into_iter().flatten();
        let known = operands.filter_map(|v| Some((self.axes.get(&v)?, self.shape(v)?)));
        known
            .flat_map(|(axes, shape)| self.moved(node, axes, &shape, &out))
            .collect()
    }

    /// Maps the axes of an operand to those of the result.
    fn moved(
        &self,
        node: NodeId,
        axes: &BTreeSet<usize>,
        before: &Shape,
        after: &Shape,
    ) -> BTreeSet<usize> {
        let rank = before.len();
        match self.graph.op(node).filter(|op| op.domain().is_empty()) {
            None if Scale::of(self.graph, node).is_some() => axes.clone(),
            None => BTreeSet::new(),
            Some(op) if op.is("Transpose") => {
                let perm = op.get::<&[i64]>("perm");
                let from = |to: usize| match perm {
                    Some(perm) => perm.get(to).and_then(|&axis| usize::try_from(axis).ok()),
                    None => Some(rank - 1 - to),
                };
                let behind = |axis: usize| rank.checked_sub(axis + 1);
                let holds = |to: &usize| {
                    let before = from(*to).and_then(behind);
                    before.is_some_and(|before| axes.contains(&before))
                };
                (0..rank).filter(holds).map(|to| rank - 1 - to).collect()
            }
            // Axis 1 and the last axis keep their place, also if heads are split off.
            Some(op) if op.has(Trait::View) => {
                let second = |shape: &Shape| shape.len().checked_sub(2);
                let size = |shape: &Shape, behind: usize| shape[shape.len() - 1 - behind].known();
                let mut moved = BTreeSet::new();
                if axes.contains(&0) && !after.is_empty() {
                    moved.insert(0);
                }
                if let (Some(from), Some(to)) = (second(before), second(after))
                    && axes.contains(&from)
                    && (size(before, from) == size(after, to))
                {
                    moved.insert(to);
                }
                moved
            }
            Some(_) if after.len() == rank => axes.clone(),
            Some(_) => BTreeSet::new(),
        }
    }

    fn shape(&self, value: Value) -> Option<Shape> {
        self.graph.value_type(value)?.shape
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder};

    use super::*;
    use crate::testing::{Layers, image, inferred, model};

    fn axes(builder: ModelBuilder, name: &str) -> Vec<usize> {
        let model = inferred(builder);
        let channels = Channels::of(&model.graph);
        let value = model.graph.value_named(name);
        (0..4)
            .filter(|behind| value.is_some_and(|v| channels.has(v, *behind)))
            .collect()
    }

    fn patches() -> ModelBuilder {
        image("batch,2,4,4").conv("x", "a", &[8, 2, 1, 1], vec![])
    }

    #[test]
    fn they_are_where_layers_put_their_units() {
        assert_eq!(axes(patches().output("a"), "a"), [2]);
        let vectors = image("batch,5,4").matmul("x", "a", &[4, 3]).output("a");
        assert_eq!(axes(vectors, "a"), [0]);
    }

    #[test]
    fn they_move_with_the_values() {
        let builder = patches()
            .param("flat", bcosc_ir::Tensor::i64_vec(&[0, 8, 16]))
            .op("Reshape", &["a", "flat"], "b", [])
            .op(
                "Transpose",
                &["b"],
                "c",
                [Attribute::ints("perm", &[0, 2, 1])],
            )
            .op("Relu", &["c"], "d", [])
            .output("d");
        assert_eq!(axes(builder, "d"), [0]);
    }

    #[test]
    fn a_sum_has_those_of_both() {
        let builder = image("batch,4,4")
            .matmul("x", "a", &[4, 4])
            .op(
                "Transpose",
                &["a"],
                "b",
                [Attribute::ints("perm", &[0, 2, 1])],
            )
            .op("Add", &["a", "b"], "c", [])
            .output("c");
        assert_eq!(axes(builder, "c"), [0, 1]);
    }

    #[test]
    fn a_broken_order_has_none() {
        let broken = |perm: &[i64]| {
            let builder = patches().op("Transpose", &["a"], "b", [Attribute::ints("perm", perm)]);
            let model = model(
                builder
                    .value("b", bcosc_ir::DataType::Float, "batch,8,4,4")
                    .output("b"),
            );
            let y = model.graph.outputs()[0].value;
            let channels = Channels::of(&model.graph);
            assert!((0..4).all(|behind| !channels.has(y, behind)));
        };
        broken(&[0, 2]);
        broken(&[0, -7, 9, 1]);
    }

    #[test]
    fn inputs_have_none() {
        assert_eq!(
            axes(
                image("batch,2").op("Relu", &["x"], "a", []).output("a"),
                "a"
            ),
            [0; 0]
        );
    }
}
