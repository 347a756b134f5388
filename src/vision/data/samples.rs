//! Pictures with the classes of a model, or without any.

use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use super::{ImageFolder, Item};
use crate::vision::images::pictures;
use crate::vision::random::rng;
use crate::{Error, Labels};

/// Purpose of random numbers: the division into training and validation.
const SPLIT: u64 = 1;

/// Pictures of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    /// The folder that they are from.
    pub path: PathBuf,
    /// The files.
    pub pictures: Vec<PathBuf>,
    /// The class of each, if they have any: the place of its logit.
    pub labels: Option<Vec<usize>>,
}

impl Samples {
    /// All pictures of a folder, at any depth, without classes.
    ///
    /// # Errors
    /// [`Error::Images`] if a folder cannot be listed, or there are no pictures.
    pub fn unlabelled(path: &Path) -> Result<Self, Error> {
        let pictures = pictures(path)?;
        if pictures.is_empty() {
            return Err(Error::Images {
                path: path.to_owned(),
                problem: "no pictures found; expected jpg, png or webp files".to_owned(),
            });
        }
        Ok(Samples {
            path: path.to_owned(),
            pictures,
            labels: None,
        })
    }

    /// Pictures of class folders, with the classes of a model; see [`ImageFolder::classes`].
    ///
    /// # Errors
    /// As [`ImageFolder::classes`].
    pub fn labelled(
        folder: ImageFolder,
        model: &str,
        classes: usize,
        labels: Option<&Labels>,
    ) -> Result<Self, Error> {
        let of_folder = folder.classes(model, classes, labels)?;
        let labels = folder.items.iter().map(|item| of_folder[item.folder]);
        let labels = Some(labels.collect());
        Ok(Samples {
            path: folder.path,
            pictures: folder.items.into_iter().map(|item| item.path).collect(),
            labels,
        })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// The pictures that have classes, as a folder whose class folders are the model's classes.
    pub(in crate::vision) fn into_folder(self, classes: usize) -> ImageFolder {
        let labels = self.labels.unwrap_or_default();
        let items = self.pictures.into_iter().zip(labels);
        ImageFolder {
            path: self.path,
            folders: (0..classes).map(|class| class.to_string()).collect(),
            items: items.map(|(path, folder)| Item { path, folder }).collect(),
            notes: Vec::new(),
        }
    }

    /// The same pictures without their classes.
    pub fn without_labels(self) -> Self {
        Samples {
            labels: None,
            ..self
        }
    }

    /// Divides the pictures in two at random; the second part has the `share` of each class, rounded. A class of at
    /// least two pictures is in both parts, and a single picture in the first. Which pictures of a class these are depends
    /// only on the seed, its number and its pictures.
    pub fn divided(&self, share: f64, seed: u64) -> (Samples, Samples) {
        let labels = self.labels.as_ref();
        self.parts(share, seed, |i| labels.map_or(0, |labels| labels[i]))
    }

    /// As [`Samples::divided`], but the second part has the `share` of all pictures, whatever their classes.
    pub fn divided_together(&self, share: f64, seed: u64) -> (Samples, Samples) {
        self.parts(share, seed, |_| 0)
    }

    /// Divides each group of pictures.
    fn parts(&self, share: f64, seed: u64, group: impl Fn(usize) -> usize) -> (Samples, Samples) {
        let group = |i: &usize| group(*i);
        let mut indices: Vec<usize> = (0..self.len()).collect();
        indices.sort_by_key(group);
        let mut second = vec![false; self.len()];
        for of_group in indices.chunk_by_mut(|a, b| group(a) == group(b)) {
            let count = of_group.len();
            let taken = match count {
                0 | 1 => 0,
                _ => ((count as f64 * share).round() as usize).clamp(1, count - 1),
            };
            of_group.shuffle(&mut rng(seed, &[SPLIT, group(&of_group[0]) as u64]));
            for &i in &of_group[..taken] {
                second[i] = true;
            }
        }
        (self.filtered(|i| !second[i]), self.filtered(|i| second[i]))
    }

    fn filtered(&self, keep: impl Fn(usize) -> bool) -> Samples {
        let kept: Vec<usize> = (0..self.len()).filter(|i| keep(*i)).collect();
        let labels = self.labels.as_ref();
        Samples {
            path: self.path.clone(),
            pictures: kept.iter().map(|&i| self.pictures[i].clone()).collect(),
            labels: labels.map(|labels| kept.iter().map(|&i| labels[i]).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn samples(labels: Option<Vec<usize>>, count: usize) -> Samples {
        Samples {
            path: "data".into(),
            pictures: (0..count).map(|i| format!("{i}.png").into()).collect(),
            labels,
        }
    }

    fn count(samples: &Samples, class: usize) -> usize {
        let labels = samples.labels.iter().flatten();
        labels.filter(|label| **label == class).count()
    }

    proptest! {
        #[test]
        fn parts_are_disjoint_and_stratified(
            labels in proptest::collection::vec(0usize..4, 1..80),
            share in 0.01f64..0.99,
            seed: u64,
        ) {
            let all = samples(Some(labels.clone()), labels.len());
            let (train, val) = all.divided(share, seed);
            prop_assert_eq!((&train, &val), (&all.divided(share, seed).0, &all.divided(share, seed).1));
            let union: BTreeSet<_> = train.pictures.iter().chain(&val.pictures).collect();
            prop_assert_eq!(union.len(), all.len());
            prop_assert_eq!(train.len() + val.len(), all.len());
            for class in 0..4 {
                let (n, v) = (count(&all, class), count(&val, class));
                let wanted = (n as f64 * share).round() as usize;
                prop_assert_eq!(v, if n < 2 { 0 } else { wanted.clamp(1, n - 1) });
            }
            for (picture, label) in val.pictures.iter().zip(val.labels.iter().flatten()) {
                let at = all.pictures.iter().position(|p| p == picture).unwrap();
                prop_assert_eq!(labels[at], *label);
            }
        }
    }

    #[test]
    fn another_class_does_not_change_the_division() {
        let of = |labels: Vec<usize>| {
            let count = labels.len();
            samples(Some(labels), count).divided(0.3, 7).1.pictures
        };
        let before = of([[0; 10], [1; 10]].concat());
        let after = of([[0; 10], [1; 10], [2; 10]].concat());
        assert_eq!(before.len(), 6);
        assert_eq!(after[..6], before);
    }

    /// A resumed training must find the same parts, whatever the version of the random generator.
    #[test]
    fn the_division_is_always_the_same() {
        let val = samples(None, 12).divided(0.25, 0).1.pictures;
        assert_eq!(val, ["2.png", "3.png", "10.png"].map(PathBuf::from));
        let other = samples(None, 12).divided(0.25, 1).1.pictures;
        assert_ne!(val, other);
    }
}
