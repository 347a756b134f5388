//! Explanations before and after training, side by side.

use bcosc_ir::Model;

use super::options::TrainOptions;
use super::prepare::Prepared;
use crate::Error;
use crate::data::{Item, Unreadable};
use crate::load::File;
use crate::vision::explain::sheet::{Row, sheet};
use crate::vision::explain::{Explained, Explainer, encoded_png};
use crate::vision::images;

/// The file of the sheet.
pub(super) const SHEET: &str = "explanations.png";

/// Two rows for each of some validation images: the explanation of its class by the model before training, and after. `None`
/// if the model cannot be explained, or its channels cannot be drawn.
pub(super) fn before_and_after(
    prepared: &Prepared,
    after: &Model,
    options: &TrainOptions,
) -> Result<Option<Vec<u8>>, Error> {
    if !prepared.explains {
        return Ok(None);
    }
    let items = images::spread(&prepared.val.items, options.sheet);
    let sides = [("before", &prepared.model), ("after", after)];
    let mut rows = Vec::with_capacity(2 * items.len());
    let mut explained = Vec::new();
    for (name, model) in sides {
        explained.push((name, explain(prepared, model, &items, options)?));
    }
    for (index, item) in items.iter().enumerate() {
        for (name, found) in &explained {
            let Some(found) = found.get(index).and_then(Option::as_ref) else {
                continue;
            };
            let Some(explanation) = found.explanations.first() else {
                continue;
            };
            let file = item.path.file_name().unwrap_or_default().to_string_lossy();
            let caption = format!(
                "{name}: {file}, class {}, logit {:.3}",
                prepared.class_name(item.folder),
                explanation.logit
            );
            rows.extend(Row::of(caption, found, explanation));
        }
    }
    let picture = sheet(&rows);
    picture.map(|picture| encoded_png(&picture)).transpose()
}

/// Explains the class of each image that can be read.
fn explain(
    prepared: &Prepared,
    model: &Model,
    items: &[Item],
    options: &TrainOptions,
) -> Result<Vec<Option<Explained>>, Error> {
    let explainer = Explainer::from_file(File::of(model, &prepared.label), &options.predict)?;
    let [height, width] = prepared.size;
    let sized = explainer.at(height, width)?;
    let frame = explainer.predictor.intake.framed(height, width);
    let explained = items.iter().map(|item| {
        let image = match images::read(&item.path, frame) {
            Err(Error::Image { .. }) if options.unreadable == Unreadable::Skip => return Ok(None),
            image => image?,
        };
        let explanation = sized.explain(&image, Some(item.folder))?;
        Ok(Some(Explained {
            image,
            explanations: vec![explanation],
        }))
    });
    explained.collect()
}
