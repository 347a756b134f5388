//! What a model outputs for pictures, as the measure of another that is to output the same.

use std::path::PathBuf;

use rayon::prelude::*;

use super::Predictor;
use crate::Error;
use crate::vision::data::{Item, Unreadable};
use crate::vision::images;

/// What the reference outputs for an image, and what another model does.
type Pair<'r> = (&'r [f32], Vec<f32>);

/// The outputs of a model for some pictures.
#[derive(Clone, Debug)]
pub(in crate::vision) struct Reference {
    pictures: Vec<PathBuf>,
    size: [usize; 2],
    unreadable: Unreadable,
    /// None for a picture that cannot be read.
    outputs: Vec<Option<Vec<f32>>>,
    /// The class with the largest output.
    classes: Vec<Option<usize>>,
}

impl Reference {
    /// Runs the model on pictures of one size, height and width.
    pub fn of(
        model: &Predictor,
        pictures: Vec<PathBuf>,
        size: [usize; 2],
        unreadable: Unreadable,
    ) -> Result<Self, Error> {
        let outputs = outputs(model, &pictures, size, unreadable)?;
        let largest = |outputs: &Vec<f32>| model.ranked(outputs).first().copied();
        let classes = outputs.iter().map(|found| largest(found.as_ref()?));
        Ok(Reference {
            classes: classes.collect(),
            pictures,
            size,
            unreadable,
            outputs,
        })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// The pictures that cannot be read.
    pub fn skipped(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pictures.iter().zip(&self.outputs);
        let unread = pairs.filter(|(_, outputs)| outputs.is_none());
        unread.map(|(path, _)| path)
    }

    /// Some of the pictures, each with the class that the model sees in it.
    pub fn items(&self, count: usize) -> Vec<Item> {
        let pairs = self.pictures.iter().zip(&self.classes);
        let items = pairs.filter_map(|(path, class)| {
            Some(Item {
                path: path.clone(),
                folder: (*class)?,
            })
        });
        images::spread(&items.collect::<Vec<_>>(), count)
    }

    /// The outputs of the model and of another one, for every picture that can be read.
    pub fn beside(&self, other: &Predictor) -> Result<Vec<Pair<'_>>, Error> {
        let found = outputs(other, &self.pictures, self.size, self.unreadable)?;
        let pairs = self.outputs.iter().zip(found);
        let pairs = pairs.filter_map(|(reference, found)| Some((reference.as_deref()?, found?)));
        Ok(pairs.collect())
    }
}

/// The mean cosine of pairs of vectors; of a vector of zeros it is 0.
pub(in crate::vision) fn mean_cosine(pairs: &[(&[f32], Vec<f32>)]) -> f64 {
    let cosines = pairs.iter().map(|(a, b)| cosine(a, b));
    cosines.sum::<f64>() / pairs.len().max(1) as f64
}

/// The output of a model for each picture.
fn outputs(
    model: &Predictor,
    pictures: &[PathBuf],
    [height, width]: [usize; 2],
    unreadable: Unreadable,
) -> Result<Vec<Option<Vec<f32>>>, Error> {
    let sized = model.at(height, width)?;
    let frame = model.intake.framed(height, width);
    let found = pictures.par_iter().map(|path| {
        let image = match images::read(path, frame) {
            Err(Error::Image { .. }) if unreadable == Unreadable::Skip => return Ok(None),
            read => read?,
        };
        sized.logits(&image).map(Some)
    });
    found.collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    match lengths > 0.0 {
        true => dot(a, b) / lengths,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_those_of_directions() {
        let a = [3.0, 4.0];
        let pairs = [
            (&a[..], vec![6.0, 8.0]),
            (&a[..], vec![-4.0, 3.0]),
            (&a[..], vec![0.0, 0.0]),
            (&a[..], vec![-3.0, -4.0]),
        ];
        let found = |range: std::ops::Range<usize>| mean_cosine(&pairs[range]);
        assert_eq!([found(0..1), found(1..2), found(2..3)], [1.0, 0.0, 0.0]);
        assert_eq!(
            [found(3..4), found(0..4), mean_cosine(&[])],
            [-1.0, 0.0, 0.0]
        );
    }
}
