//! The normalisation of the original's input.

use bcosc_ir::Model;
use bcosc_passes::analysis::channel_axis::channel_axis;
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::preprocessing::Preprocessing;
use bcosc_passes::bcos::input::double::DOUBLE_INPUT;
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Normalization, Settings};

use crate::Error;
use crate::options::contract_name;

const CHANNELS_FIRST: &str = "the original takes images [N, H, W, C]; with this input format the converted model takes [N, C, H, W]";

/// Moves a normalisation at the start of the graph into the settings if the input format takes raw images, and removes the
/// `Transpose` that puts channels first. Returns a note for the user.
pub(crate) fn take_normalization(
    model: &mut Model,
    settings: &mut Settings,
    label: &str,
) -> Result<Option<String>, Error> {
    let found = image_input(&model.graph).and_then(|image| Preprocessing::of(&model.graph, image));
    if settings.normalization.is_some() {
        let Some(moves) = found.filter(|found| found.channels_last && !found.normalizes) else {
            return Ok(None);
        };
        remove(&moves, model, label)?;
        return Ok(Some(CHANNELS_FIRST.to_owned()));
    }
    let Some(found) = found.filter(|found| found.normalizes) else {
        return Err(Error::Options(format!(
            "input format `{}` requires the normalisation of the original's input, and {label} does not begin with one: give \
             --normalization, or --mean and --std",
            contract_name(settings.input)
        )));
    };
    remove(&found, model, label)?;
    let rounded = |numbers: &[f64]| {
        let texts = numbers.iter().map(|x| format!("{:.4}", x));
        texts.collect::<Vec<_>>().join(", ")
    };
    let Normalization { mean, std } = &found.normalization;
    let note = format!(
        "the model normalises its input itself, with mean {} and standard deviation {} of pixels in [0,1]; the new input \
         format replaces it",
        rounded(mean),
        rounded(std)
    );
    settings.normalization = Some(found.normalization);
    Ok(Some(note))
}

fn remove(found: &Preprocessing, model: &mut Model, label: &str) -> Result<(), Error> {
    found.remove(model).map_err(|error| Error::Pass {
        model: label.to_owned(),
        source: Box::new(PipelineError {
            pass: DOUBLE_INPUT.name,
            source: Box::new(error),
        }),
    })
}

/// Gives every channel of the model's image input a mean and a standard deviation of its own.
pub(crate) fn spread(model: &Model, settings: &mut Settings) {
    if let Some(normalization) = &mut settings.normalization {
        let channels = channels(model).unwrap_or(0);
        let length = normalization
            .mean
            .len()
            .max(normalization.std.len())
            .max(channels);
        for numbers in [&mut normalization.mean, &mut normalization.std] {
            if let [only] = numbers[..] {
                numbers.resize(length, only);
            }
        }
    }
}

/// Channels of the model's image input.
fn channels(model: &Model) -> Option<usize> {
    let image = image_input(&model.graph)?;
    let shape = model.graph.value_type(image)?.shape?;
    let axis = channel_axis(&model.graph, image)?;
    usize::try_from(shape.get(axis)?.known()?).ok()
}
