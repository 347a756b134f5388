//! Explanations of the same pictures by several models, in one picture.

use bcosc_ir::Model;

use super::sheet::{Row, sheet};
use super::{Explained, Explainer, encoded_png};
use crate::data::Item;
use crate::load::File;
use crate::vision::images;
use crate::{Error, PredictOptions};

/// The usual name of the file.
pub(in crate::vision) const SHEET: &str = "explanations.png";

/// What such a picture is made with.
pub(in crate::vision) struct SideBySide<'a> {
    /// The models' name in messages.
    pub label: &'a str,
    /// Height and width of pictures.
    pub size: [usize; 2],
    /// How pictures enter the models.
    pub options: &'a PredictOptions,
    /// Leave out pictures that cannot be read, instead of failing.
    pub skip_unreadable: bool,
    /// The name of a class.
    pub class_name: &'a dyn Fn(usize) -> String,
}

impl SideBySide<'_> {
    /// A row for each picture and model: the explanation of the class that the item's folder stands for. `None` if a model
    /// cannot be explained, or its channels cannot be drawn.
    pub fn png(&self, models: &[(&str, &Model)], items: &[Item]) -> Result<Option<Vec<u8>>, Error> {
        let mut explained = Vec::new();
        for (name, model) in models {
            match self.explain(model, items) {
                Ok(found) => explained.push((name, found)),
                Err(Error::Explain { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut rows = Vec::with_capacity(models.len() * items.len());
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
                    (self.class_name)(item.folder),
                    explanation.logit
                );
                rows.extend(Row::of(caption, found, explanation));
            }
        }
        let picture = sheet(&rows);
        picture.map(|picture| encoded_png(&picture)).transpose()
    }

    /// Explains the class of each picture that can be read.
    fn explain(&self, model: &Model, items: &[Item]) -> Result<Vec<Option<Explained>>, Error> {
        let explainer = Explainer::from_file(File::of(model, self.label), self.options)?;
        let [height, width] = self.size;
        let sized = explainer.at(height, width)?;
        let frame = explainer.predictor.intake.framed(height, width);
        let explained = items.iter().map(|item| {
            let image = match images::read(&item.path, frame) {
                Err(Error::Image { .. }) if self.skip_unreadable => return Ok(None),
                read => read?,
            };
            let explanation = sized.explain(&image, Some(item.folder))?;
            Ok(Some(Explained {
                image,
                explanations: vec![explanation],
            }))
        });
        explained.collect()
    }
}
