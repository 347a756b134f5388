//! The structure of a model, and a preview of its conversion.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bcosc_engine::default_interpreter;
use bcosc_ir::ops::Trait;
use bcosc_ir::views::BatchNorm;
use bcosc_ir::{Graph, Model, Op, Use};
use bcosc_passes::analysis::linearity::{Linearity, Verdict};
use bcosc_passes::analysis::raise::{Kind, Raised};
use bcosc_passes::pipeline::Step;
use bcosc_passes::recipe::CANONICAL;
use bcosc_passes::{Context, Settings, pipeline};
use serde::Serialize;

use crate::canonical::Canonical;
use crate::load::{Read, read};
use crate::{Error, Metadata, Recipe, Selection, Size, Source, plan, support};

/// The structure of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The model file; `null` for a model in memory.
    pub model: Option<PathBuf>,
    /// The tool that made it, and its version.
    pub producer: String,
    /// Version of the file format.
    pub ir_version: i64,
    /// Every imported operator set: domain (empty for standard ONNX) and version.
    pub opsets: BTreeMap<String, i64>,
    /// How large it is.
    pub size: Size,
    /// Inputs without a default value, in order.
    pub inputs: Vec<Port>,
    /// Outputs in order.
    pub outputs: Vec<Port>,
    /// Count of each operator, nested graphs included.
    pub ops: BTreeMap<String, usize>,
    /// Number of local functions.
    pub functions: usize,
    /// Norms and convolutions without norm.
    pub norms: Norms,
    /// Recognised composite operations.
    pub composites: Vec<Composites>,
    /// Operators that usually belong to a composite, but to none that was recognised.
    pub unrecognised: Vec<Unrecognised>,
    /// For each output, whether it is dynamic linear before conversion.
    pub linearity: Vec<Verdict>,
    /// The bcosc metadata, if any.
    pub converted: Option<Metadata>,
    /// A preview of each recipe.
    pub recipes: Vec<RecipePreview>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type and shape, such as `float[batch,3,224,224]`; `null` for what is not a tensor.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// Batch norms, and convolutions without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Norms {
    /// BatchNormalization nodes.
    pub batch_norms: usize,
    /// Convolutions directly followed by a batch norm.
    pub convolutions_with_norm: usize,
    /// Convolutions with a bias but no norm, probably folded at export.
    pub convolutions_folded: usize,
    /// Convolutions with neither bias nor norm.
    pub convolutions_bare: usize,
    /// Layer, group, instance and RMS norms.
    pub other_norms: usize,
}

/// All composites of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Composites {
    /// What they are.
    pub kind: Kind,
    /// The last node of each, in graph order.
    pub nodes: Vec<String>,
}

/// An operator that is part of no recognised composite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unrecognised {
    /// The node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// The closest composite, if any.
    pub nearest: Option<Kind>,
    /// The node that does not match this composite.
    pub stopped_at: Option<String>,
}

/// A preview of a recipe.
#[derive(Clone, Debug, Serialize)]
pub struct RecipePreview {
    /// The recipe.
    pub recipe: &'static str,
    /// Why it cannot convert the model; `null` if it can.
    pub problem: Option<String>,
    /// Passes that would change something.
    pub passes: Vec<PassSummary>,
    /// Number of operators afterwards; `null` if the recipe cannot convert the model.
    pub nodes: Option<usize>,
}

/// A preview of a pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassSummary {
    /// The pass.
    pub pass: &'static str,
    /// How many changes it would make.
    pub changes: usize,
    /// Number of skipped nodes by reason.
    pub skips: BTreeMap<String, usize>,
}

/// Inspects a model.
///
/// # Errors
/// If the model cannot be read. A model that no recipe can convert is not an error: see [`RecipePreview`].
pub fn inspect(source: impl Into<Source>) -> Result<(Inspection, Model), Error> {
    let Read {
        model,
        label,
        path,
        bytes,
        mut warnings,
    } = read(source.into(), &[])?;
    let (producer, version) = model.producer();
    let graph = &model.graph;
    let kind = |value| graph.value_type(value).map(|t| t.to_string());
    let inputs = graph.inputs().into_iter();
    let inputs = inputs.map(|v| Port {
        name: graph.value_name(v).to_owned(),
        kind: kind(v),
    });
    let outputs = graph.outputs().iter();
    let outputs = outputs.map(|o| Port {
        name: o.info.name.clone().unwrap_or_default(),
        kind: kind(o.value),
    });
    let mut ops = BTreeMap::new();
    support::visit(graph, &mut |_, _, op| {
        *ops.entry(op.kind()).or_insert(0) += 1
    });
    let settings = Settings::default();
    let canonical = Canonical::of(&model, CANONICAL, &settings, &label, |_, _| {});
    let typed = canonical.as_ref().map_err(explain).and_then(|canonical| {
        let typed = canonical.typed(&label);
        typed.map_err(|error| explain(&error))
    });
    let seen = match &typed {
        Ok(typed) => &typed.graph,
        Err(problem) => {
            warnings.push(format!(
                "norms, composites and linearity refer to the model as given, since it has no canonical form: {problem}"
            ));
            graph
        }
    };
    let raised = Raised::of(seen);
    let convertible = support::check(&model, &label).and(canonical);
    let prospects = [Recipe::Cnn, Recipe::Vit, Recipe::Clip]
        .map(|recipe| preview(&convertible, recipe, &settings));
    let inspection = Inspection {
        producer: format!("{producer} {version}").trim().to_owned(),
        ir_version: model.ir_version(),
        opsets: model
            .opsets()
            .map(|(domain, version)| (domain.to_owned(), version))
            .collect(),
        size: Size::of(&model, Some(bytes)),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        ops,
        functions: model.functions().len(),
        norms: norms(seen),
        composites: composites(seen, &raised),
        unrecognised: unrecognised(seen, &raised),
        linearity: Linearity::of(seen).verdicts(),
        converted: Metadata::read(&model, &label)?,
        recipes: prospects.into(),
        model: path,
        warnings,
    };
    Ok((inspection, model))
}

fn composites(graph: &Graph, raised: &Raised) -> Vec<Composites> {
    let mut by_kind: BTreeMap<Kind, Vec<String>> = BTreeMap::new();
    for composite in &raised.composites {
        let nodes = by_kind.entry(composite.kind).or_default();
        nodes.push(graph.label(composite.out.node));
    }
    by_kind
        .into_iter()
        .map(|(kind, nodes)| Composites { kind, nodes })
        .collect()
}

fn unrecognised(graph: &Graph, raised: &Raised) -> Vec<Unrecognised> {
    let left = raised.unrecognised.iter();
    left.map(|left| Unrecognised {
        node: graph.label(left.node),
        op: graph.op(left.node).map(Op::kind).unwrap_or_default(),
        nearest: left.nearest.map(|(kind, _)| kind),
        stopped_at: left.nearest.map(|(_, node)| graph.label(node)),
    })
    .collect()
}

fn norms(graph: &Graph) -> Norms {
    let mut norms = Norms::default();
    for id in graph.ops() {
        let Some(op) = graph.op(id) else { continue };
        match op.op_type() {
            "BatchNormalization" => norms.batch_norms += 1,
            _ if op.has(Trait::Norm) => norms.other_norms += 1,
            "Conv" => {
                let uses = graph.uses(graph.output(id, 0));
                let is_norm = |u: &Use| matches!(u, Use::Input { node, slot: 0 } if BatchNorm::of(graph, *node).is_some());
                match (uses.iter().any(is_norm), graph.input(id, 2).is_some()) {
                    (true, _) => norms.convolutions_with_norm += 1,
                    (false, true) => norms.convolutions_folded += 1,
                    (false, false) => norms.convolutions_bare += 1,
                }
            }
            _ => {}
        }
    }
    norms
}

/// A conversion without proof and without output.
fn preview(
    canonical: &Result<Canonical, Error>,
    recipe: Recipe,
    settings: &Settings,
) -> RecipePreview {
    let rewritten = canonical
        .as_ref()
        .map_err(explain)
        .and_then(|canonical| rewrite(canonical, recipe, settings));
    match rewritten {
        Err(problem) => RecipePreview {
            recipe: recipe.name(),
            problem: Some(problem),
            passes: Vec::new(),
            nodes: None,
        },
        Ok((steps, nodes)) => RecipePreview {
            recipe: recipe.name(),
            problem: None,
            passes: steps.iter().filter_map(summary).collect(),
            nodes: Some(nodes),
        },
    }
}

/// The outcome of the passes of a recipe, and the number of operators afterwards.
fn rewrite(
    canonical: &Canonical,
    recipe: Recipe,
    settings: &Settings,
) -> Result<(Vec<Step>, usize), String> {
    let passes = plan::list(recipe, &Selection::default(), false).map_err(|e| explain(&e))?;
    let context = Context {
        settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    let mut model = canonical.model.clone();
    let rest = &passes[canonical.steps.len()..];
    let steps = pipeline::run(&mut model, rest, &context, |_, _| {});
    let steps = steps.map_err(|error| error.to_string())?.into_iter();
    let steps = canonical.steps.iter().cloned().chain(steps).collect();
    Ok((steps, model.graph.op_count()))
}

/// The preview of a pass, if it changed or skipped anything.
fn summary(step: &Step) -> Option<PassSummary> {
    let mut skips = BTreeMap::new();
    for skip in &step.outcome.skips {
        *skips.entry(skip.reason.to_string()).or_insert(0) += 1;
    }
    let changes = step.outcome.changes.len();
    let pass = step.pass;
    (changes > 0 || !skips.is_empty()).then_some(PassSummary {
        pass,
        changes,
        skips,
    })
}

/// An error with its causes in one line.
fn explain(error: &Error) -> String {
    match error {
        Error::Pass { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
