//! Changes of operators between opsets, one row per change.

use bcosc_ir::{Attribute, DataType, Graph, NodeId, Op, Operand, Patch, Tensor, Value};

use super::softmax;
use crate::Reason;
use crate::analysis::weights;

/// The upgrade of one operator to its form as of an opset.
#[derive(Clone, Copy)]
pub struct Rule {
    /// First opset of the new form.
    pub since: i64,
    /// The operator.
    pub op: &'static str,
    /// The upgrade.
    pub(super) change: Change,
}

/// How to upgrade an operator.
#[derive(Clone, Copy)]
pub(super) enum Change {
    /// A rewrite; `None` if the node already has the new form.
    Rewrite(Rewrite),
    /// Not supported, for this reason.
    Refused(&'static str),
}

type Rewrite = fn(&Graph, NodeId) -> Result<Option<Patch>, Reason>;

const fn rule(since: i64, op: &'static str, rewrite: Rewrite) -> Rule {
    let change = Change::Rewrite(rewrite);
    Rule { since, op, change }
}

const fn refused(since: i64, op: &'static str, why: &'static str) -> Rule {
    let change = Change::Refused(why);
    Rule { since, op, change }
}

impl Rule {
    /// Why the operator cannot be upgraded, if so.
    pub fn obstacle(&self) -> Option<&'static str> {
        match self.change {
            Change::Rewrite(_) => None,
            Change::Refused(why) => Some(why),
        }
    }
}

/// All changes that need a rewrite, oldest first. Changes that only add types or optional inputs and attributes are
/// not listed.
pub(super) static RULES: &[Rule] = &[
    rule(9, "BatchNormalization", drop_spatial),
    refused(9, "Scan", "Scan had a batch of sequences before opset 9"),
    rule(9, "Upsample", |g, n| {
        to_inputs(g, n, &[Field::Floats("scales", 1)])
    }),
    rule(10, "Upsample", |g, n| rename(g, n, "Resize")),
    rule(10, "Slice", |g, n| {
        to_inputs(
            g,
            n,
            &[
                Field::Ints("starts", 1),
                Field::Ints("ends", 2),
                Field::Ints("axes", 3),
            ],
        )
    }),
    rule(10, "TopK", |g, n| to_inputs(g, n, &[Field::Int("k", 1)])),
    rule(11, "Clip", |g, n| {
        to_inputs(g, n, &[Field::Scalar("min", 1), Field::Scalar("max", 2)])
    }),
    rule(11, "Pad", |g, n| {
        to_inputs(g, n, &[Field::Ints("pads", 1), Field::Scalar("value", 2)])
    }),
    rule(11, "Resize", resize_eleven),
    rule(11, "Scatter", |g, n| rename(g, n, "ScatterElements")),
    rule(12, "Dropout", |g, n| {
        to_inputs(g, n, &[Field::Float("ratio", 1)])
    }),
    rule(13, "Softmax", softmax::along_axis),
    rule(13, "LogSoftmax", softmax::along_axis),
    rule(13, "Hardmax", softmax::along_axis),
    rule(13, "Split", |g, n| {
        to_inputs(g, n, &[Field::Ints("split", 1)])
    }),
    rule(13, "Squeeze", axes_to_input),
    rule(13, "Unsqueeze", axes_to_input),
    rule(13, "ReduceSum", axes_to_input),
    rule(14, "BatchNormalization", one_output),
    rule(18, "ReduceL1", axes_to_input),
    rule(18, "ReduceL2", axes_to_input),
    rule(18, "ReduceLogSum", axes_to_input),
    rule(18, "ReduceLogSumExp", axes_to_input),
    rule(18, "ReduceMax", axes_to_input),
    rule(18, "ReduceMean", axes_to_input),
    rule(18, "ReduceMin", axes_to_input),
    rule(18, "ReduceProd", axes_to_input),
    rule(18, "ReduceSumSquare", axes_to_input),
    rule(18, "Split", count_outputs),
    refused(20, "DFT", "its axis was an attribute before opset 20"),
    rule(20, "GridSample", grid_sample_mode),
    refused(
        21,
        "GroupNormalization",
        "its scale and bias were per group before opset 21",
    ),
];

/// An attribute that became an input, with the input's slot.
enum Field {
    /// A list of integers.
    Ints(&'static str, u32),
    /// One integer, which becomes a vector of length 1.
    Int(&'static str, u32),
    /// A list of floats.
    Floats(&'static str, u32),
    /// A float that stays single precision.
    Float(&'static str, u32),
    /// A float that becomes a scalar of the type of the first input.
    Scalar(&'static str, u32),
}

fn axes_to_input(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    to_inputs(graph, node, &[Field::Ints("axes", 1)])
}

fn to_inputs(graph: &Graph, node: NodeId, fields: &[Field]) -> Result<Option<Patch>, Reason> {
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    let mut patch = Patch::at(node);
    let mut found = false;
    for field in fields {
        let (Field::Ints(name, slot)
        | Field::Int(name, slot)
        | Field::Floats(name, slot)
        | Field::Float(name, slot)
        | Field::Scalar(name, slot)) = field;
        let Some(attribute) = op.attribute(name).map(Attribute::proto) else {
            continue;
        };
        let tensor = match field {
            Field::Ints(..) => Tensor::i64_vec(&attribute.ints),
            Field::Int(..) => Tensor::i64_vec(&[attribute.i.ok_or(Reason::Malformed)?]),
            Field::Floats(..) => {
                Tensor::f32s(&[attribute.floats.len() as u64], attribute.floats.clone())
            }
            Field::Float(..) => Tensor::f32s(&[], vec![attribute.f.ok_or(Reason::Malformed)?]),
            Field::Scalar(..) => {
                let dtype = graph
                    .input(node, 0)
                    .and_then(|x| graph.value_type(x))
                    .map_or(DataType::Float, |t| t.dtype);
                weights::tensor(
                    dtype,
                    &[],
                    &[f64::from(attribute.f.ok_or(Reason::Malformed)?)],
                )
            }
        };
        let parameter = patch.parameter(name, tensor);
        patch.set_input(node, *slot, Some(parameter));
        patch.unset_attribute(node, name);
        found = true;
    }
    Ok(found.then_some(patch))
}

fn rename(graph: &Graph, node: NodeId, op_type: &str) -> Result<Option<Patch>, Reason> {
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    rebuilt(
        graph,
        node,
        with_attributes_of(Op::new("", op_type), op),
        graph.output_count(node),
    )
}

fn with_attributes_of(new: Op, old: &Op) -> Op {
    old.attributes().iter().cloned().fold(new, Op::with)
}

/// Replaces a node by another operator with the same operands.
fn rebuilt(graph: &Graph, node: NodeId, op: Op, outputs: u32) -> Result<Option<Patch>, Reason> {
    let mut patch = Patch::at(node);
    let inputs: Vec<Option<Operand>> = graph
        .inputs_of(node)
        .into_iter()
        .map(|v| v.map(Operand::Old))
        .collect();
    if let Operand::New { node: index, .. } = patch.multi_op(op, &inputs, outputs) {
        for slot in 0..outputs {
            patch.replace(Value { node, slot }, Operand::New { node: index, slot });
        }
    }
    Ok(Some(patch))
}

fn drop_spatial(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    if op.attribute("spatial").is_none() {
        return Ok(None);
    }
    if op.get("spatial") != Some(true) {
        return Err(Reason::NoRewrite("spatial = 0 has no form from opset 9 on"));
    }
    let mut patch = Patch::at(node);
    patch.unset_attribute(node, "spatial");
    Ok(Some(patch))
}

/// Before opset 14, further outputs held training statistics.
fn one_output(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    let outputs = graph.output_count(node);
    if outputs == 1 {
        return Ok(None);
    }
    if (1..outputs).any(|slot| !graph.uses(Value { node, slot }).is_empty()) {
        return Err(Reason::TrainingMode);
    }
    let op = graph.op(node).ok_or(Reason::Malformed)?;
    rebuilt(
        graph,
        node,
        with_attributes_of(Op::new("", "BatchNormalization"), op),
        1,
    )
}

/// Opset 11 added `roi` before `scales` and an attribute for the coordinate transformation, which was `asymmetric`.
fn resize_eleven(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    let scales = graph.input(node, 1).ok_or(Reason::Malformed)?;
    let mut patch = Patch::at(node);
    // `roi` is optional only as of opset 13.
    let roi = patch.parameter("roi", Tensor::f32s(&[0], Vec::new()));
    patch.set_input(node, 2, Some(scales.into()));
    patch.set_input(node, 1, Some(roi));
    patch.set_attribute(
        node,
        Attribute::string("coordinate_transformation_mode", "asymmetric"),
    );
    patch.set_attribute(node, Attribute::string("nearest_mode", "floor"));
    Ok(Some(patch))
}

/// A split into equal parts needs `num_outputs` as of opset 18.
fn count_outputs(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    if graph.input(node, 1).is_some()
        || graph
            .op(node)
            .is_some_and(|op| op.attribute("num_outputs").is_some())
    {
        return Ok(None);
    }
    let mut patch = Patch::at(node);
    patch.set_attribute(
        node,
        Attribute::int("num_outputs", graph.output_count(node).into()),
    );
    Ok(Some(patch))
}

fn grid_sample_mode(graph: &Graph, node: NodeId) -> Result<Option<Patch>, Reason> {
    let mode = match graph.op(node).and_then(|op| op.get_at("mode", 19)) {
        Some("bilinear") => "linear",
        Some("bicubic") => "cubic",
        _ => return Ok(None),
    };
    let mut patch = Patch::at(node);
    patch.set_attribute(node, Attribute::string("mode", mode));
    Ok(Some(patch))
}
