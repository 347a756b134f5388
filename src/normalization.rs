//! The normalisation of the original's input.

use bcosc_ir::Model;
use bcosc_passes::analysis::image::image_input;
use bcosc_passes::analysis::preprocessing::Preprocessing;
use bcosc_passes::bcos::input::double::DOUBLE_INPUT;
use bcosc_passes::pipeline::PipelineError;
use bcosc_passes::{Normalization, Settings};

use crate::Error;
use crate::options::contract_name;

/// Moves a normalisation at the start of the graph into the settings if the input format takes raw images.
/// Returns a note for the user.
pub(crate) fn take_normalization(
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
    found.remove(model).map_err(|error| Error::Pass {
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
    let shape = model.graph.value_type(image_input(&model.graph)?)?.shape?;
    usize::try_from(shape.get(1)?.known()?).ok()
}
