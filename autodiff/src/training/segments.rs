//! Cutting a model and its original into segments that compute the same.
//!
//! A *border* is a place in the order of the original's operators. The values that are computed before it and read behind
//! it cross it. A model can be cut there if it has a value for each of them. So a skip connection that crosses a border is
//! one more value, and the layers of a dense block can be cut apart.
//!
//! 1. Of borders with the same number of layers before them, the last is taken: behind norms, activations and pools.
//! 2. Borders that one value crosses come first: blocks stay whole. A block of many layers is cut where more values cross, one of
//!    them new.
//! 3. Neighbours whose costs add up to the least are joined, until there are as many segments as asked for.
//!
//! Cost is the number of multiplications of an image; sizes that are not fixed count as 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bcosc_ir::{Graph, Model, NodeId, Value};
use bcosc_passes::{Context, PassError, Reason};

use super::parameters::{Parameter, Role, parameters, reads_numbers, slot_role};
use super::{Exponent, canonical, prepared};
use crate::activity::dependents;
use crate::explanation::image;

/// Layers of the largest block that stays whole.
const WHOLE: usize = 12;
/// Layers in the pieces of larger blocks.
const PIECE: usize = 6;
/// The most segments, if their number is not given.
const MOST: usize = 24;

/// A part of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Values of earlier segments that it or later ones read, by their names in the original; none for the first segment,
    /// which reads the images.
    pub reads: Vec<String>,
    /// Values that it computes and later segments read, by their names in the original; none for the last segment, which
    /// computes the output.
    pub values: Vec<String>,
    /// Its parameters, by their names in the model.
    pub parameters: Vec<String>,
    /// Layers in it.
    pub layers: usize,
    /// Multiplications of an image in the original.
    pub cost: u64,
}

/// A place where both models can be cut.
#[derive(Clone, Debug)]
struct Border {
    /// Operators of the original before it.
    at: usize,
    /// Values that cross it, by their names in the original; those of the original are in its order.
    crossing: Vec<Arc<str>>,
    /// Layers of the model before it.
    layers: usize,
}

/// Cuts a model into segments; without `count`, into one for every two layers, and at most 24. The model must know what
/// its values stand for in the original.
///
/// # Errors
/// If no value of the model stands for one of the original, or a model has no input for images.
pub fn segments(
    model: &Model,
    original: &Model,
    count: Option<usize>,
    biases_removed: bool,
    cx: &Context<'_>,
) -> Result<Vec<Segment>, PassError> {
    let mut model = model.clone();
    let exponents = prepared(&mut model, Exponent::Fixed, cx)?;
    cx.infer(&mut model)?;
    let images = image(&model.graph)?;
    let trained = parameters(&model.graph, images, biases_removed, &exponents);
    let mut original = original.clone();
    canonical(&mut original, cx)?;
    cx.infer(&mut original)?;
    let input = image(&original.graph)?;
    let sides = Sides {
        model: &model.graph,
        original: &original.graph,
        needs: needs(&model.graph, &trained),
        trained,
        places: places(&model.graph, images),
        order: original.graph.ops(),
    };
    let borders = sides.borders(input);
    if borders.is_empty() {
        return Err(PassError::Model(Reason::NoPlaces));
    }
    let mut chosen = sides.blocks(&borders);
    let layers = sides.layers();
    let most = count.unwrap_or((layers / 2).clamp(1, MOST)).max(1);
    // Layers follow every border, so there is one segment more.
    while chosen.len() + 1 > most && !chosen.is_empty() {
        sides.join_cheapest(&mut chosen);
    }
    Ok(sides.between(&chosen))
}

/// The values of a model that depend on the images and stand for values of the original, by the names of these.
fn places(graph: &Graph, images: Value) -> BTreeMap<Arc<str>, Value> {
    let from_image = dependents(graph, &[images], &|node, _, _| reads_numbers(graph, node));
    let mut found = graph.provenance();
    found.retain(|_, value| *value != images && from_image.contains(value));
    found
}

/// The parameters that values depend on, by their numbers; found in one walk.
fn needs(graph: &Graph, trained: &[Parameter]) -> BTreeMap<Value, BTreeSet<usize>> {
    let own = trained.iter().enumerate();
    let mut found: BTreeMap<Value, BTreeSet<usize>> = own
        .map(|(number, parameter)| (parameter.value, BTreeSet::from([number])))
        .collect();
    for node in graph.ops() {
        let read = graph.inputs_of(node).into_iter().flatten();
        let read = read.chain(graph.captured_by(node));
        let all: BTreeSet<usize> = read
            .filter_map(|value| found.get(&value))
            .flatten()
            .copied()
            .collect();
        for slot in 0..graph.output_count(node) {
            let value = Value { node, slot };
            found.entry(value).or_default().extend(&all);
        }
    }
    found
}

/// A model and its original.
struct Sides<'g> {
    model: &'g Graph,
    original: &'g Graph,
    /// Parameters of the model.
    trained: Vec<Parameter>,
    /// The parameters that each value of the model depends on, by their numbers.
    needs: BTreeMap<Value, BTreeSet<usize>>,
    /// Values of the model, by the names of those they stand for.
    places: BTreeMap<Arc<str>, Value>,
    /// Operators of the original.
    order: Vec<NodeId>,
}

impl Sides<'_> {
    /// The borders that can be cut, the last of each number of layers.
    fn borders(&self, input: Value) -> Vec<Border> {
        let graph = self.original;
        let from_image = dependents(graph, &[input], &|node, _, _| reads_numbers(graph, node));
        let mut last_read: BTreeMap<Value, usize> = BTreeMap::new();
        for (at, &node) in self.order.iter().enumerate() {
            if reads_numbers(graph, node) {
                let read = graph.inputs_of(node).into_iter().flatten();
                let read = read.chain(graph.captured_by(node));
                last_read.extend(read.map(|value| (value, at)));
            }
        }

        let mut live: Vec<Value> = Vec::new();
        let mut borders: Vec<Border> = Vec::new();
        for (at, &node) in self.order.iter().enumerate() {
            let new = (0..graph.output_count(node)).map(|slot| Value { node, slot });
            live.extend(new.filter(|value| from_image.contains(value)));
            live.retain(|value| last_read.get(value).is_some_and(|&last| last > at));
            let crossing: Option<Vec<Arc<str>>> =
                live.iter().map(|&value| self.place(value)).collect();
            let Some(crossing) = crossing.filter(|crossing| !crossing.is_empty()) else {
                continue;
            };
            let layers = self.before(&crossing).filter(|p| p.role == Role::Weight);
            let border = Border {
                at,
                layers: layers.count(),
                crossing,
            };
            match borders.last_mut() {
                // A value less is worth more than an activation more.
                Some(last) if last.layers == border.layers => {
                    if border.crossing.len() <= last.crossing.len() {
                        *last = border;
                    }
                }
                _ => borders.push(border),
            }
        }
        // Behind the last layer the output is compared.
        let all = self.layers();
        borders.retain(|border| border.layers > 0 && border.layers < all);
        borders
    }

    /// The name of a value of the original that the model has a value for, of the same type.
    fn place(&self, value: Value) -> Option<Arc<str>> {
        let expected = self.original.value_type(value)?;
        let fits = |name: &&Arc<str>| {
            let found = self.places.get(*name);
            let found = found.and_then(|&value| self.model.value_type(value));
            super::alignment::is_comparable(found.as_ref(), Some(&expected))
        };
        self.original.stands_for(value).iter().find(fits).cloned()
    }

    /// The parameters that values of the model depend on.
    fn before(&self, crossing: &[Arc<str>]) -> impl Iterator<Item = &Parameter> {
        let values = crossing.iter().map(|name| self.places[name]);
        let needed: BTreeSet<usize> = values
            .filter_map(|value| self.needs.get(&value))
            .flatten()
            .copied()
            .collect();
        needed.into_iter().map(|number| &self.trained[number])
    }

    /// The borders of blocks: those that one value crosses, and others within large blocks.
    fn blocks(&self, borders: &[Border]) -> Vec<Border> {
        let mut chosen: Vec<Border> = Vec::new();
        let mut inside: Vec<&Border> = Vec::new();
        for border in borders {
            if border.crossing.len() > 1 {
                inside.push(border);
                continue;
            }
            let from = chosen.last().map_or(0, |last| last.layers);
            if border.layers - from > WHOLE {
                chosen.extend(pieces(&inside, from, border.layers));
            }
            inside.clear();
            chosen.push(border.clone());
        }
        let from = chosen.last().map_or(0, |last| last.layers);
        let all = self.layers();
        if all.saturating_sub(from) > WHOLE {
            chosen.extend(pieces(&inside, from, all));
        }
        chosen
    }

    /// Layers of the model.
    fn layers(&self) -> usize {
        let weights = self.trained.iter().filter(|p| p.role == Role::Weight);
        weights.count()
    }

    /// Drops the border between the two neighbours that cost least together.
    fn join_cheapest(&self, borders: &mut Vec<Border>) {
        let ends: Vec<usize> = borders.iter().map(|border| border.at + 1).collect();
        let cost = |border: usize| {
            let start = border.checked_sub(1).map_or(0, |before| ends[before]);
            let end = ends.get(border + 1).copied();
            self.cost(start, end.unwrap_or(self.order.len()))
        };
        if let Some(cheapest) = (0..ends.len()).min_by_key(|&border| cost(border)) {
            borders.remove(cheapest);
        }
    }

    /// Multiplications of operators of the original.
    fn cost(&self, start: usize, end: usize) -> u64 {
        let nodes = self.order[start..end].iter();
        nodes.map(|&node| cost(self.original, node)).sum()
    }

    /// What lies between borders.
    fn between(&self, borders: &[Border]) -> Vec<Segment> {
        let mut found = Vec::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        let mut computed: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut start = 0;
        let mut reads: Vec<String> = Vec::new();
        let mut add = |parameters: Vec<&'_ Parameter>, crossing: &[Arc<str>], end: usize| {
            let layers = parameters.iter().filter(|p| p.role == Role::Weight).count();
            let values = crossing.iter();
            let values = values.filter(|name| computed.insert(Arc::clone(name)));
            let values = values.map(|name| name.to_string()).collect();
            let crossing = crossing.iter().map(|name| name.to_string());
            found.push(Segment {
                reads: std::mem::replace(&mut reads, crossing.collect()),
                values,
                layers,
                parameters: parameters.into_iter().map(|p| p.name.clone()).collect(),
                cost: self.cost(start, end),
            });
            start = end;
        };
        for border in borders {
            let new: Vec<&Parameter> = self
                .before(&border.crossing)
                .filter(|parameter| !known.contains(parameter.name.as_str()))
                .collect();
            known.extend(new.iter().map(|parameter| parameter.name.as_str()));
            add(new, &border.crossing, border.at + 1);
        }
        let rest = self.trained.iter();
        let rest: Vec<&Parameter> = rest
            .filter(|parameter| !known.contains(parameter.name.as_str()))
            .collect();
        if !rest.is_empty() {
            add(rest, &[], self.order.len());
        }
        found
    }
}

/// Borders that cut a large block into pieces.
fn pieces(inside: &[&Border], mut from: usize, end: usize) -> Vec<Border> {
    let mut chosen: Vec<Border> = Vec::new();
    for border in inside {
        if border.layers - from >= PIECE && end - border.layers >= PIECE / 2 {
            from = border.layers;
            chosen.push((*border).clone());
        }
    }
    chosen
}

/// Multiplications of a layer.
fn cost(graph: &Graph, node: NodeId) -> u64 {
    let Some(op) = graph.op(node) else {
        return 0;
    };
    let inputs = graph.inputs_of(node).into_iter().enumerate();
    let weights = inputs.filter_map(|(slot, value)| Some((slot as u32, graph.constant(value?)?)));
    let weight = weights
        .filter(|(slot, _)| slot_role(op, *slot) == Some(Role::Weight))
        .map(|(_, tensor)| tensor.dims().iter().product::<u64>())
        .max();
    let (Some(weight), Some(found)) = (weight, graph.value_type(graph.output(node, 0))) else {
        return 0;
    };
    // Each element of the weight is used once for every position of the output.
    let dims = found.shape.unwrap_or_default();
    let channels = match op.op_type() {
        "Conv" | "ConvTranspose" => dims.get(1),
        _ => dims.last(),
    };
    let elements: u64 = dims.iter().filter_map(|dim| dim.known()).product();
    let channels = channels.and_then(|dim| dim.known()).unwrap_or(1).max(1);
    weight.saturating_mul(elements / channels)
}

#[cfg(test)]
mod tests;
