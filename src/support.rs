//! Rejects models that no recipe can convert, before any other work.

use std::collections::BTreeSet;

use bcosc_ir::ops::{NEWEST, OLDEST, Trait};
use bcosc_ir::{Graph, Model, NodeId, Op, Value};

use crate::error::UnsupportedOp;
use crate::{Error, Metadata};

const EXPORT_PLAIN: &str = "export the model with standard ONNX operators only (from the training framework, not from a \
    runtime's optimised copy), or copy it unchanged with recipe `none`";
const ML_OUTPUTS: &str = "these operators output lists and names of scores: keep another output of the model with --output, or export it \
    without them (in skl2onnx, with zipmap off)";
const EXPORT_FLOAT: &str = "the model is quantised: convert the floating-point model that it was made from, and quantise \
    afterwards";

/// Checks that the model can be converted. `label` names it in errors.
pub(crate) fn check(model: &Model, label: &str) -> Result<(), Error> {
    if let Some(made) = Metadata::read(model, label)? {
        return Err(Error::AlreadyConverted {
            model: label.to_owned(),
            version: made.version,
            b: made.b,
        });
    }
    check_operators(model, label)
}

/// Checks that bcosc supports the model's operators.
pub(crate) fn check_operators(model: &Model, label: &str) -> Result<(), Error> {
    let opset_problem = match model.opset("") {
        Some(opset) if opset > NEWEST => Some(format!(
            "opset {opset} is not supported: the newest supported opset is {NEWEST}"
        )),
        Some(opset) if opset < OLDEST => Some(format!(
            "opset {opset} is not supported: the oldest supported opset is {OLDEST}; export the model with a \
            newer opset, or use onnx.version_converter"
        )),
        Some(_) => None,
        None => Some("the model does not import the standard operator set".to_owned()),
    };
    if let Some(problem) = opset_problem {
        return Err(Error::Opset {
            model: label.to_owned(),
            problem,
        });
    }
    let fail = |ops, advice| {
        Err(Error::UnsupportedOps {
            model: label.to_owned(),
            ops,
            advice,
        })
    };
    let quantised = collect(model, &|op| op.has(Trait::Quantised));
    if !quantised.is_empty() {
        return fail(quantised, EXPORT_FLOAT.to_owned());
    }
    let is_local = |op: &Op| {
        let domain = op.domain();
        model.functions().iter().any(|f| {
            f.name.as_deref() == Some(op.op_type())
                && f.domain.as_deref().unwrap_or_default() == domain
        })
    };
    let custom = collect(model, &|op| !op.domain().is_empty() && !is_local(op));
    if !custom.is_empty() {
        let sorts = |found: &UnsupportedOp| ML_OUTPUT_OPS.contains(&found.op.as_str());
        let advice = match free_outputs(&model.graph, &is_local) {
            free if !free.is_empty() => format!(
                "keep only outputs that do not depend on them: --output {}",
                free.join(",")
            ),
            _ if custom.iter().all(sorts) => ML_OUTPUTS.to_owned(),
            _ => EXPORT_PLAIN.to_owned(),
        };
        return fail(custom, advice);
    }
    Ok(())
}

/// Operators after the scores of a classifier.
const ML_OUTPUT_OPS: [&str; 3] = [
    "ai.onnx.ml::ArrayFeatureExtractor",
    "ai.onnx.ml::LabelEncoder",
    "ai.onnx.ml::ZipMap",
];

/// The floating-point outputs that depend on no custom operator.
fn free_outputs(graph: &Graph, is_local: &dyn Fn(&Op) -> bool) -> Vec<String> {
    let custom = |op: &Op| !op.domain().is_empty() && !is_local(op);
    let mut tainted = BTreeSet::new();
    for node in graph.ops() {
        let Some(op) = graph.op(node) else { continue };
        let mut bodies = false;
        for body in op.subgraphs() {
            visit(body, &mut |_, _, op| bodies |= custom(op));
        }
        let captured = graph.captured_by(node);
        let mut read = graph.inputs_of(node).into_iter().flatten().chain(captured);
        if custom(op) || bodies || read.any(|value| tainted.contains(&value.node)) {
            tainted.insert(node);
        }
    }
    let outputs = graph.outputs().iter().map(|output| output.value);
    let floats = |value: &Value| {
        let found = graph.value_type(*value);
        found.is_none_or(|found| found.dtype.is_float())
    };
    let free = outputs
        .filter(|value| !tainted.contains(&value.node))
        .filter(floats);
    free.map(|value| graph.value_name(value).to_owned())
        .collect()
}

fn collect(model: &Model, wanted: &dyn Fn(&Op) -> bool) -> Vec<UnsupportedOp> {
    let mut found = Vec::new();
    visit(&model.graph, &mut |graph, id, op| {
        if wanted(op) {
            found.push(UnsupportedOp {
                node: graph.label(id),
                op: op.kind(),
                opset: model.opset(op.domain()).unwrap_or(0),
            });
        }
    });
    found
}

/// Every operator of a graph and of the graphs nested in it.
pub(crate) fn visit(graph: &Graph, see: &mut dyn FnMut(&Graph, NodeId, &Op)) {
    for id in graph.ops() {
        if let Some(op) = graph.op(id) {
            see(graph, id, op);
            for body in op.subgraphs() {
                visit(body, see);
            }
        }
    }
}
