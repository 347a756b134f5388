//! Forms of the constant channel.
//!
//! The form of a value has as many axes as the value and broadcasts to it: every axis is as long as the value's, or 1. The
//! image has `u [N, 1, H, W]`; windows keep it local, and what moves or mixes positions leaves the mean over positions,
//! `[N, 1, 1]`. No form mixes images.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Window;
use bcosc_ir::{Dim, Graph, NodeId, Value};

use super::rules::Rules;
use super::windows::Sizes;

/// How a form is made of the one before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// An average pool. Windows with the same sizes are one.
    Window(Sizes),
    /// The mean over axes, which stay with size 1.
    Mean(Vec<usize>),
    /// Axes in another order.
    Transpose(Vec<usize>),
    /// Axes of size 1 removed.
    Squeeze(Vec<usize>),
    /// Axes of size 1 inserted, by their places in the result.
    Unsqueeze(Vec<usize>),
    /// One number per image, along the first of so many axes.
    Rank(usize),
    /// What a node does to its first operand, of full size.
    Follow(NodeId),
}

/// A form.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// The form it is made of; `None` for that of the image.
    pub from: Option<(usize, Step)>,
    /// For every axis, whether it may be longer than 1.
    pub wide: Vec<bool>,
    /// The axis of images, where it is known.
    pub images: Option<usize>,
}

/// The forms of all values of a graph, by index; 0 is that of the image.
#[derive(Clone, Debug)]
pub(super) struct Forms {
    forms: Vec<Form>,
    made: BTreeMap<(usize, Step), usize>,
    /// The windows of average pools: the first one with its sizes.
    windows: BTreeMap<(usize, Sizes), Window>,
    of: BTreeMap<Value, usize>,
    /// The values that depend on the image.
    reached: BTreeSet<Value>,
    /// The size of a batch.
    batch: Dim,
}

impl Forms {
    /// The forms of the values behind the doubled channels of an image `[N, C, ...]` or `[N, 2C, ...]`; `None` if its rank
    /// is not known.
    pub(super) fn of(graph: &Graph, image: Value, doubled: Value) -> Option<Self> {
        let dims = graph.value_type(image)?.shape?;
        let wide = dims.iter().enumerate();
        let wide = wide.map(|(axis, dim)| axis != 1 && *dim != Dim::Known(1));
        let own = Form {
            from: None,
            wide: wide.collect(),
            images: Some(0),
        };
        let mut forms = Forms {
            forms: vec![own],
            made: BTreeMap::new(),
            windows: BTreeMap::new(),
            of: BTreeMap::from([(doubled, 0)]),
            reached: BTreeSet::from([doubled]),
            batch: dims.first()?.clone(),
        };
        for node in graph.ops() {
            let mut read = graph.inputs_of(node).into_iter().flatten();
            let sizes = graph.op(node).is_some_and(|op| op.has(Trait::ShapeOnly));
            if sizes || !read.any(|v| forms.reached.contains(&v)) {
                continue;
            }
            let outputs = (0..graph.output_count(node)).map(|slot| graph.output(node, slot));
            let outputs: Vec<Value> = outputs.collect();
            let mut rules = Rules {
                graph,
                forms: &mut forms,
            };
            let form = rules.behind(node);
            forms.reached.extend(&outputs);
            if let Some(form) = form {
                forms
                    .of
                    .extend(outputs.into_iter().map(|value| (value, form)));
            }
        }
        Some(forms)
    }

    /// The form of a value.
    pub(super) fn get(&self, value: Value) -> Option<usize> {
        self.of.get(&value).copied()
    }

    /// States that a new value has the form of another.
    pub(super) fn same(&mut self, new: Value, old: Value) {
        if let Some(form) = self.get(old) {
            self.of.insert(new, form);
        }
    }

    /// A form.
    pub(super) fn form(&self, index: usize) -> &Form {
        &self.forms[index]
    }

    /// The window of the average pool that makes a form.
    pub(super) fn window(&self, from: usize, sizes: &Sizes) -> Option<&Window> {
        self.windows.get(&(from, sizes.clone()))
    }

    /// The mean over axes; `None` if it would mix images.
    pub(super) fn mean(&mut self, from: usize, axes: &[usize]) -> Option<usize> {
        let Form {
            mut wide, images, ..
        } = self.forms[from].clone();
        let is_wide = |axis: &usize| wide.get(*axis) == Some(&true) && axes.contains(axis);
        let over: Vec<usize> = (0..wide.len()).filter(is_wide).collect();
        if over.iter().any(|&axis| images == Some(axis)) {
            return None;
        }
        over.iter().for_each(|&axis| wide[axis] = false);
        match over.is_empty() {
            true => Some(from),
            false => Some(self.add(from, Step::Mean(over), wide, images)),
        }
    }

    /// One number per image.
    pub(super) fn per_image(&mut self, from: usize) -> Option<usize> {
        let images = self.forms[from].images?;
        let rank = self.forms[from].wide.len();
        let others: Vec<usize> = (0..rank).filter(|&axis| axis != images).collect();
        self.mean(from, &others)
    }

    /// One number per image along the first of so many axes, where images are on the first axis.
    pub(super) fn ranked(&mut self, from: usize, rank: usize) -> Option<usize> {
        let first = self.forms[from].images == Some(0) && rank > 0;
        first.then(|| self.numbers(rank))
    }

    /// An average pool whose window is `dense`; axes in `single` have one position then.
    pub(super) fn pooled(
        &mut self,
        from: usize,
        sizes: Sizes,
        dense: Window,
        single: &[usize],
    ) -> usize {
        self.windows.entry((from, sizes.clone())).or_insert(dense);
        let Form {
            mut wide, images, ..
        } = self.forms[from].clone();
        single.iter().for_each(|&axis| wide[axis] = false);
        self.add(from, Step::Window(sizes), wide, images)
    }

    /// Axes in another order.
    pub(super) fn transposed(&mut self, from: usize, order: &[usize]) -> Option<usize> {
        let Form { wide, images, .. } = &self.forms[from];
        let moved: Option<Vec<bool>> = order.iter().map(|&axis| wide.get(axis).copied()).collect();
        let moved = moved.filter(|moved| moved.len() == wide.len())?;
        let images = images.and_then(|images| order.iter().position(|&axis| axis == images));
        Some(self.add(from, Step::Transpose(order.to_vec()), moved, images))
    }

    /// Without some axes of size 1.
    pub(super) fn squeezed(&mut self, from: usize, axes: &[usize]) -> Option<usize> {
        let Form { wide, images, .. } = &self.forms[from];
        if axes.iter().any(|&axis| wide.get(axis) != Some(&false)) {
            return None;
        }
        let kept = |axis: &usize| !axes.contains(axis);
        let kept: Vec<usize> = (0..wide.len()).filter(kept).collect();
        let images = images.and_then(|images| kept.iter().position(|&axis| axis == images));
        let wide = kept.iter().map(|&axis| wide[axis]).collect();
        Some(self.add(from, Step::Squeeze(axes.to_vec()), wide, images))
    }

    /// With more axes of size 1, by their places in the result.
    pub(super) fn unsqueezed(&mut self, from: usize, axes: &[usize]) -> usize {
        let Form { wide, images, .. } = &self.forms[from];
        let mut all = vec![false; wide.len() + axes.len()];
        let kept: Vec<usize> = (0..all.len()).filter(|axis| !axes.contains(axis)).collect();
        let images = images.and_then(|images| kept.get(images).copied());
        for (&axis, &wide) in kept.iter().zip(wide) {
            all[axis] = wide;
        }
        self.add(from, Step::Unsqueeze(axes.to_vec()), all, images)
    }

    /// What a node that moves elements does to its first operand; `dims` is the shape of its result.
    pub(super) fn followed(&mut self, from: usize, node: NodeId, dims: &[Dim]) -> Option<usize> {
        let from = self.per_image(from).unwrap_or(from);
        Some(self.add(from, Step::Follow(node), vec![true; dims.len()], None))
    }

    /// One number per image for a value of this shape that depends on the image: where its first axis has the name of the
    /// batch, which nothing else has, or where there is one image.
    pub(super) fn by_name(&mut self, dims: &[Dim]) -> Option<usize> {
        let named = match &self.batch {
            Dim::Symbol(_) => dims.first() == Some(&self.batch),
            only => *only == Dim::Known(1) && !dims.is_empty(),
        };
        named.then(|| self.numbers(dims.len()))
    }

    fn add(&mut self, from: usize, step: Step, wide: Vec<bool>, images: Option<usize>) -> usize {
        // However they are made, the numbers per image are those of the image itself.
        match images == Some(0) && !wide[1..].contains(&true) {
            true => self.numbers(wide.len()),
            false => self.push(from, step, wide, images),
        }
    }

    /// One number per image along the first of so many axes.
    fn numbers(&mut self, rank: usize) -> usize {
        let own = self.forms[0].wide.len();
        let over: Vec<usize> = (1..own).filter(|&axis| self.forms[0].wide[axis]).collect();
        let mut wide = vec![false; own];
        wide[0] = self.forms[0].wide[0];
        let mean = match over.is_empty() {
            true => 0,
            false => self.push(0, Step::Mean(over), wide.clone(), Some(0)),
        };
        if rank == own {
            return mean;
        }
        wide.resize(rank, false);
        self.push(mean, Step::Rank(rank), wide, Some(0))
    }

    fn push(&mut self, from: usize, step: Step, wide: Vec<bool>, images: Option<usize>) -> usize {
        let next = self.forms.len();
        let index = *self.made.entry((from, step.clone())).or_insert(next);
        if index == next {
            let from = Some((from, step));
            self.forms.push(Form { from, wide, images });
        }
        index
    }
}
