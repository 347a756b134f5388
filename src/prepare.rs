//! What is asked of the original before it is converted and held against the result.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Model, Value};
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::preprocessing::Preprocessing;
use bcosc_passes::bcos::input::double::DOUBLE_INPUT;
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Context, Normalization, Settings, pipeline, recipe};

use crate::options::contract_name;
use crate::{Error, Probability};

/// A contract on raw images takes the place of the normalisation that a graph begins with. Returns what
/// to tell the user.
pub(crate) fn peel(
    model: &mut Model,
    settings: &mut Settings,
    label: &str,
) -> Result<Option<String>, Error> {
    if settings.normalization.is_some() {
        return Ok(None);
    }
    let found = image_input(&model.graph).and_then(|image| Preprocessing::of(&model.graph, image));
    let Some(found) = found else {
        return Err(Error::Options(format!(
            "input contract `{}` needs to know how the original's input was normalised, and {label} does not begin with a \
             normalisation: give --mean and --std, or --normalization",
            contract_name(settings.input)
        )));
    };
    found.peel(model).map_err(|error| Error::Pass {
        model: label.to_owned(),
        source: Box::new(PipelineError {
            pass: DOUBLE_INPUT.name,
            source: Box::new(error),
        }),
    })?;
    let rounded = |numbers: &[f64]| {
        let texts = numbers.iter().map(|x| format!("{:.4}", x));
        texts.collect::<Vec<_>>().join(", ")
    };
    let Normalization { mean, std } = &found.normalization;
    let note = format!(
        "the model normalises its input itself, with mean {} and standard deviation {} of pixels in [0,1]; the new input \
         contract takes the place of that",
        rounded(mean),
        rounded(std)
    );
    settings.normalization = Some(found.normalization);
    Ok(Some(note))
}

/// Leaves a model only the outputs that are asked for, and what they need.
pub(crate) fn keep_outputs(model: &mut Model, wanted: &[String], label: &str) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let graph = &model.graph;
    let problem = |problem| Error::Input {
        model: label.to_owned(),
        problem,
    };
    let mut kept: Vec<Value> = Vec::with_capacity(wanted.len());
    for (i, name) in wanted.iter().enumerate() {
        if wanted[..i].contains(name) {
            continue;
        }
        let mut outputs = graph.outputs().iter();
        let found = outputs.find(|output| output.info.name() == name);
        let found = found.ok_or_else(|| {
            let outputs = graph.outputs().iter();
            let names: Vec<String> = outputs.map(|o| format!("`{}`", o.info.name())).collect();
            let names = names.join(", ");
            problem(format!(
                "there is no output `{name}`; the outputs are {names}"
            ))
        })?;
        kept.push(found.value);
    }
    let part = model.extract(&graph.inputs(), &kept);
    *model = part.map_err(|error| problem(error.to_string()))?;
    Ok(())
}

/// Cuts a model that ends in probabilities off before them, so that it puts out logits; says which they were.
pub(crate) fn before_probabilities(model: &mut Model) -> Option<Probability> {
    let graph = &model.graph;
    let [output] = graph.outputs() else {
        return None;
    };
    let (node, op) = graph.producer(output.value)?;
    let ending = match op.op_type() {
        "Softmax" | "LogSoftmax" => Probability::Softmax,
        "Sigmoid" => Probability::Sigmoid,
        _ => return None,
    };
    let logits = graph.input(node, 0).filter(|_| op.domain().is_empty())?;
    let name = output.info.name.clone().unwrap_or_default();
    model.graph.set_outputs(&[(logits, name)]);
    model.graph.remove_dead();
    Some(ending)
}

/// The model without what exporters leave lying about, such as biases of zero; as it came where
/// that fails.
pub(crate) fn canonical(model: &Model) -> Model {
    let settings = Settings::default();
    let context = Context {
        settings: &settings,
        interpreter: default_interpreter(),
        calibration: None,
    };
    let mut canonical = model.clone();
    let done = pipeline::run(&mut canonical, recipe::CANONICAL, &context, |_, _| {});
    match done.map(|_| context.infer(&mut canonical)) {
        Ok(_) => canonical,
        Err(_) => model.clone(),
    }
}
