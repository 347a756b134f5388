//! `resolve-sequences`: replaces sequences by their tensors.
//!
//! Exporters write `split` and `chunk` as a sequence of which elements are read. With constant indices, each element
//! is a `Split` output, a `Slice` or a `Gather`; the elements of a constructed sequence are its
//! operands.
//!
//! ```text
//! s = SplitToSequence <axis = 1> (x, {2, 4})    a = SequenceAt (s, {0})    b = SequenceAt (s, {1})
//! a, b = Split <axis = 1> (x, {2, 4})
//! ```

use bcosc_ir::{Dim, Graph, Model, NodeId, Op, Operand, Patch, Tensor, Use, Value, views};

use super::constants;
use super::worklist::{Ops, Rule, Site, apply_rules};
use crate::{Context, Effect, Outcome, Pass, PassError, Reason};

/// The pass.
pub static RESOLVE_SEQUENCES: Pass = Pass {
    name: "resolve-sequences",
    summary: "replace tensor sequences by tensors",
    effect: Effect::Exact,
    requires: &[&crate::canonical::functions::INLINE_FUNCTIONS],
    run,
};

fn run(model: &mut Model, _: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    apply_rules(model, RULES, &mut outcome)?;
    Ok(outcome)
}

static RULES: &[Rule] = &[
    Rule {
        ops: Ops::Named(&["SplitToSequence"]),
        what: "replaced by Split",
        rewrite: split,
    },
    Rule {
        ops: Ops::Named(&["SequenceAt"]),
        what: "bypassed: reads the element directly",
        rewrite: element,
    },
    Rule {
        ops: Ops::Named(&["ConcatFromSequence"]),
        what: "joins the elements directly",
        rewrite: concat,
    },
    Rule {
        ops: Ops::Named(&["SequenceLength"]),
        what: "the length is a constant",
        rewrite: length,
    },
];

/// How `SplitToSequence` splits.
struct Cut {
    x: Value,
    axis: i64,
    parts: Parts,
}

enum Parts {
    /// Slices of these lengths.
    Lengths(Vec<i64>),
    /// Slices of one length (the last may be shorter); their number is not known.
    Each(i64),
    /// Slices of length 1 with the axis removed.
    Dropped,
}

impl Cut {
    fn of(graph: &Graph, node: NodeId) -> Result<Self, Reason> {
        let op = graph.op(node).ok_or(Reason::Malformed)?;
        let x = graph.input(node, 0).ok_or(Reason::Malformed)?;
        let axis = op.get("axis").ok_or(Reason::Malformed)?;
        let Some(split) = graph.input(node, 1) else {
            let parts = if op.get("keepdims") == Some(false) {
                Parts::Dropped
            } else {
                Self::even(graph, x, axis, 1)
            };
            return Ok(Cut { x, axis, parts });
        };
        let tensor = constants::constant(graph, split)
            .ok_or_else(|| Reason::NotConstant(graph.value_name(split).to_owned()))?;
        let lengths = tensor.to_i64s().map_err(|_| Reason::Malformed)?;
        let parts = match (tensor.dims().len(), &lengths[..]) {
            (1, _) => Parts::Lengths(lengths),
            (0, &[length]) if length > 0 => Self::even(graph, x, axis, length),
            _ => return Err(Reason::Malformed),
        };
        Ok(Cut { x, axis, parts })
    }

    /// Slices of one length: a list of lengths where the size of the axis is known.
    fn even(graph: &Graph, x: Value, axis: i64, length: i64) -> Parts {
        let shape = graph
            .value_type(x)
            .and_then(|t| t.shape)
            .unwrap_or_default();
        let index = if axis < 0 {
            axis + shape.len() as i64
        } else {
            axis
        };
        let size = usize::try_from(index)
            .ok()
            .and_then(|i| shape.get(i))
            .and_then(Dim::known);
        match size.and_then(|size| i64::try_from(size).ok()) {
            // Many short slices are better taken one by one as needed.
            Some(size) if size > 0 && (size - 1) / length < 64 => {
                let full = size / length;
                let rest = size % length;
                let mut lengths = vec![length; full as usize];
                lengths.extend(Some(rest).filter(|&rest| rest > 0));
                Parts::Lengths(lengths)
            }
            _ => Parts::Each(length),
        }
    }
}

/// `SplitToSequence` whose elements are all read by constant index.
fn split(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site {
        graph, node, opset, ..
    } = *site;
    let cut = Cut::of(graph, node)?;
    let Parts::Lengths(lengths) = cut.parts else {
        return Err(Reason::Needed("the number of elements is not known"));
    };
    let mut taken = Vec::new();
    for usage in graph.uses(site.output()) {
        let (consumer, op) = match usage {
            Use::Input { node, slot: 0 } => (node, graph.op(node).ok_or(Reason::Malformed)?),
            _ => return Err(Reason::Sequence(graph.value_name(site.output()).to_owned())),
        };
        if !op.is("SequenceAt") {
            return Err(Reason::Needed(
                "the sequence has other consumers than SequenceAt",
            ));
        }
        taken.push((consumer, place(graph, consumer, lengths.len())?));
    }
    let mut patch = Patch::at(node);
    let axis = Op::new("", "Split").with_int("axis", cut.axis);
    let count = lengths.len() as u32;
    let first = if opset >= 13 {
        let lengths = patch.parameter("lengths", Tensor::i64_vec(&lengths));
        patch.multi_op(axis, &[Some(cut.x.into()), Some(lengths)], count)
    } else {
        patch.multi_op(
            axis.with_ints("split", &lengths),
            &[Some(cut.x.into())],
            count,
        )
    };
    let Operand::New { node: new, .. } = first else {
        return Err(Reason::Malformed);
    };
    for (consumer, place) in taken {
        let slot = place as u32;
        patch.replace(graph.output(consumer, 0), Operand::New { node: new, slot });
    }
    Ok(patch)
}

/// The constant index of a `SequenceAt` in a sequence of `length` elements.
fn place(graph: &Graph, node: NodeId, length: usize) -> Result<usize, Reason> {
    let index = constant_place(graph, node)?;
    let from_start = if index < 0 {
        index + length as i64
    } else {
        index
    };
    let place = usize::try_from(from_start)
        .ok()
        .filter(|&place| place < length);
    place.ok_or(Reason::Malformed)
}

fn constant_place(graph: &Graph, node: NodeId) -> Result<i64, Reason> {
    let index = graph.input(node, 1).ok_or(Reason::Malformed)?;
    let name = || graph.value_name(index).to_owned();
    constants::integer(graph, index).ok_or_else(|| Reason::NotConstant(name()))
}

/// `SequenceAt` of a list of tensors, or of a split into an unknown number of slices.
fn element(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let sequence = site.input(0)?;
    if let Some(elements) = elements_of(graph, sequence) {
        let place = place(graph, node, elements.len())?;
        return site.bypass(elements[place]);
    }
    let (source, op) = graph
        .producer(sequence)
        .ok_or_else(|| unknown(graph, sequence))?;
    if !op.is("SplitToSequence") {
        return Err(unknown(graph, sequence));
    }
    let cut = Cut::of(graph, source)?;
    let index = constant_place(graph, node)?;
    let mut patch = Patch::at(node);
    let new = match cut.parts {
        Parts::Dropped => {
            let index = patch.parameter("index", Tensor::i64s(&[], vec![index]));
            let op = Op::new("", "Gather").with_int("axis", cut.axis);
            patch.op(op, &[cut.x.into(), index])
        }
        Parts::Lengths(lengths) => {
            let place = place(graph, node, lengths.len())?;
            let start: i64 = lengths[..place].iter().sum();
            slice(&mut patch, cut.x, cut.axis, start, start + lengths[place])
        }
        // Counting from the end works for slices of length 1 alone: others need the number of slices.
        Parts::Each(1) if index < 0 => {
            let end = if index == -1 { i64::MAX } else { index + 1 };
            slice(&mut patch, cut.x, cut.axis, index, end)
        }
        Parts::Each(_) if index < 0 => {
            return Err(Reason::UnknownShape(graph.value_name(cut.x).to_owned()));
        }
        Parts::Each(length) => {
            let start = index.checked_mul(length).ok_or(Reason::Malformed)?;
            slice(
                &mut patch,
                cut.x,
                cut.axis,
                start,
                start.saturating_add(length),
            )
        }
    };
    patch.replace(site.output(), new);
    Ok(patch)
}

fn slice(patch: &mut Patch, x: Value, axis: i64, start: i64, end: i64) -> Operand {
    let starts = patch.parameter("starts", Tensor::i64_vec(&[start]));
    let ends = patch.parameter("ends", Tensor::i64_vec(&[end]));
    let axes = patch.parameter("axes", Tensor::i64_vec(&[axis]));
    patch.op(Op::new("", "Slice"), &[x.into(), starts, ends, axes])
}

fn unknown(graph: &Graph, sequence: Value) -> Reason {
    Reason::Sequence(graph.value_name(sequence).to_owned())
}

/// The elements of a sequence constructed from tensors.
fn elements_of(graph: &Graph, sequence: Value) -> Option<Vec<Value>> {
    // A sequence built by insertions is followed back to its start.
    let mut edits = Vec::new();
    let mut current = sequence;
    let mut elements = loop {
        let (node, op) = graph.producer(current)?;
        match op.op_type() {
            _ if !op.domain().is_empty() => return None,
            "SequenceEmpty" => break Vec::new(),
            "SequenceConstruct" => {
                break graph.inputs_of(node).into_iter().collect::<Option<_>>()?;
            }
            "SequenceInsert" | "SequenceErase" => edits.push(node),
            "Identity" => {}
            _ => return None,
        }
        current = graph.input(node, 0)?;
    };
    for node in edits.into_iter().rev() {
        let insert = graph.op(node)?.is("SequenceInsert");
        let slot = if insert { 2 } else { 1 };
        let length = elements.len() as i64;
        let index = match graph.input(node, slot) {
            Some(index) => constants::integer(graph, index)?,
            None if insert => length,
            None => length - 1,
        };
        let index = usize::try_from(if index < 0 { index + length } else { index }).ok()?;
        if insert && index <= elements.len() {
            elements.insert(index, graph.input(node, 1)?);
        } else if !insert && index < elements.len() {
            elements.remove(index);
        } else {
            return None;
        }
    }
    Some(elements)
}

/// `ConcatFromSequence` of a list of tensors or of a split.
fn concat(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site {
        graph,
        node,
        op,
        opset,
    } = *site;
    let sequence = site.input(0)?;
    let axis: i64 = op.get("axis").ok_or(Reason::Malformed)?;
    let stacked = op.get("new_axis").ok_or(Reason::Malformed)?;
    let mut patch = Patch::at(node);
    let mut parts: Vec<Operand> = match elements_of(graph, sequence) {
        Some(elements) => elements.into_iter().map(Operand::from).collect(),
        None => {
            let (source, op) = graph
                .producer(sequence)
                .ok_or_else(|| unknown(graph, sequence))?;
            let cut = Some(op)
                .filter(|op| op.is("SplitToSequence"))
                .map(|_| Cut::of(graph, source));
            let Some(Cut {
                x,
                axis,
                parts: Parts::Lengths(lengths),
            }) = cut.transpose()?
            else {
                return Err(unknown(graph, sequence));
            };
            let starts = lengths.iter().scan(0, |end, length| {
                *end += length;
                Some(*end - length)
            });
            let cuts = starts.zip(&lengths);
            cuts.map(|(start, length)| slice(&mut patch, x, axis, start, start + length))
                .collect()
        }
    };
    if parts.is_empty() {
        return Err(Reason::Malformed);
    }
    if stacked {
        for part in &mut parts {
            *part = views::unsqueeze(&mut patch, opset, *part, &[axis]);
        }
    }
    let joined = patch.op(Op::new("", "Concat").with_int("axis", axis), &parts);
    patch.replace(site.output(), joined);
    Ok(patch)
}

/// `SequenceLength` of a list whose length is known.
fn length(site: &Site<'_>) -> Result<Patch, Reason> {
    let Site { graph, node, .. } = *site;
    let sequence = site.input(0)?;
    let length = match elements_of(graph, sequence) {
        Some(elements) => elements.len(),
        None => {
            let source = graph
                .producer(sequence)
                .filter(|(_, op)| op.is("SplitToSequence"));
            let (source, _) = source.ok_or_else(|| unknown(graph, sequence))?;
            match Cut::of(graph, source)?.parts {
                Parts::Lengths(lengths) => lengths.len(),
                Parts::Each(_) | Parts::Dropped => return Err(unknown(graph, sequence)),
            }
        }
    };
    let mut patch = Patch::at(node);
    let constant = patch.parameter("length", Tensor::i64s(&[], vec![length as i64]));
    patch.replace(site.output(), constant);
    Ok(patch)
}

#[cfg(test)]
mod tests;
