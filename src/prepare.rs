//! What is asked of the original before it is converted and held against the result.

use bcosc_engine::Tract;
use bcosc_ir::{Model, Value};
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::preprocessing::Preprocessing;
use bcosc_passes::bcos::input::double::DOUBLE_INPUT;
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Context, Normalization, Settings, pipeline, recipe};

use crate::Error;
use crate::options::contract_name;

/// A contract on raw images takes the place of the normalisation that a graph begins with, and of the `Transpose` that
/// puts channels first. Returns what to tell the user.
pub(crate) fn peel(
    model: &mut Model,
    settings: &mut Settings,
    label: &str,
) -> Result<Option<String>, Error> {
    let found = image_input(&model.graph).and_then(|image| Preprocessing::of(&model.graph, image));
    let normalizes = |found: &Preprocessing| found.normalizes;
    if settings.normalization.is_some() {
        let moved = found.filter(|found| found.channels_last && !found.normalizes);
        return moved
            .map(|moved| peel_transpose(&moved, model, label))
            .transpose();
    }
    let Some(found) = found.filter(normalizes) else {
        return Err(Error::Options(format!(
            "input contract `{}` needs to know how the original's input was normalised, and {label} does not begin with a \
             normalisation: give --mean and --std, or --normalization",
            contract_name(settings.input)
        )));
    };
    take_out(&found, model, label)?;
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

fn peel_transpose(found: &Preprocessing, model: &mut Model, label: &str) -> Result<String, Error> {
    take_out(found, model, label)?;
    Ok(
        "the model takes images [N, H, W, C]; with the new input contract it takes [N, C, H, W]"
            .to_owned(),
    )
}

fn take_out(found: &Preprocessing, model: &mut Model, label: &str) -> Result<(), Error> {
    found.peel(model).map_err(|error| Error::Pass {
        model: label.to_owned(),
        source: Box::new(PipelineError {
            pass: DOUBLE_INPUT.name,
            source: Box::new(error),
        }),
    })
}

/// Leaves a model only the outputs that are asked for, and what they need.
pub(crate) fn keep_outputs(model: &mut Model, wanted: &[String], label: &str) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let graph = &model.graph;
    let all: Vec<(Value, String)> = graph
        .outputs()
        .iter()
        .map(|output| (output.value, output.info.name.clone().unwrap_or_default()))
        .collect();
    let mut kept = Vec::with_capacity(wanted.len());
    for (i, name) in wanted.iter().enumerate() {
        if wanted[..i].contains(name) {
            continue;
        }
        let found = all.iter().find(|(_, known)| known == name);
        kept.push(found.cloned().ok_or_else(|| Error::Input {
            model: label.to_owned(),
            problem: format!(
                "there is no output `{name}`; the outputs are {}",
                all.iter().map(|(_, name)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
        })?);
    }
    model.graph.set_outputs(&kept);
    model.graph.remove_dead();
    Ok(())
}

/// The model without what exporters leave lying about, such as biases of zero; as it came where
/// that fails.
pub(crate) fn canonical(model: &Model) -> Model {
    let settings = Settings::default();
    let context = Context {
        settings: &settings,
        interpreter: &Tract,
        calibration: None,
    };
    let mut canonical = model.clone();
    let done = pipeline::run(&mut canonical, recipe::CANONICAL, &context, |_, _| {});
    match done.map(|_| context.infer(&mut canonical)) {
        Ok(_) => canonical,
        Err(_) => model.clone(),
    }
}
