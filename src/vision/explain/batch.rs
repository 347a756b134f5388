//! Explaining many pictures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Explainer, Explanation, SizedExplainer};
use crate::{Error, Images};

/// The classes to explain for each picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// These, in this order.
    Classes(Vec<usize>),
    /// The classes with the largest logits; for an embedding, the entries with the largest magnitude.
    Top(usize),
}

impl Choice {
    /// Number of explained classes per picture.
    pub fn count(&self) -> usize {
        match self {
            Choice::Classes(classes) => classes.len(),
            Choice::Top(count) => *count,
        }
    }
}

/// A picture and its explanations.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The picture after resizing, raw pixels `[1, C, height, width]`.
    pub image: Images,
    /// One explanation per class.
    pub explanations: Vec<Explanation>,
}

impl Explainer {
    /// Checks a choice against the number of classes.
    ///
    /// # Errors
    /// [`Error::Options`] if a class does not exist, or none is requested.
    pub fn check(&self, choice: &Choice) -> Result<(), Error> {
        let classes = self.predictor.classes;
        let last = classes.saturating_sub(1);
        let label = &self.predictor.label;
        let problem = match choice {
            Choice::Top(count) if *count == 0 || *count > classes => {
                format!("cannot explain {count} classes: {label} has {classes}")
            }
            Choice::Classes(chosen) => match chosen.iter().find(|class| **class >= classes) {
                Some(class) => {
                    format!("there is no class {class}: {label} has the classes 0 to {last}")
                }
                None if chosen.is_empty() => "no classes to explain".to_owned(),
                None => return Ok(()),
            },
            Choice::Top(_) => return Ok(()),
        };
        Err(Error::Options(problem))
    }

    /// Explains pictures in parallel, and calls `done` with the index and result of each.
    /// A picture that cannot be read or explained does not stop the others.
    ///
    /// # Errors
    /// As [`Explainer::check`].
    pub fn explain_files(
        &self,
        pictures: &[PathBuf],
        choice: &Choice,
        done: &(dyn Fn(usize, Result<Explained, Error>) + Sync),
    ) -> Result<(), Error> {
        self.check(choice)?;
        let sizes: Vec<_> = pictures
            .par_iter()
            .map(|path| self.predictor.intake.frame(path))
            .collect();
        // One prepared model per size, one size after the other, to bound memory.
        let mut by_size: BTreeMap<[usize; 2], Vec<usize>> = BTreeMap::new();
        for (place, size) in sizes.into_iter().enumerate() {
            match size {
                Ok(frame) => by_size
                    .entry([frame.height, frame.width])
                    .or_default()
                    .push(place),
                Err(error) => done(place, Err(error)),
            }
        }
        for ([height, width], places) in by_size {
            let sized = self.at(height, width);
            places.into_par_iter().for_each(|place| {
                let explained = match &sized {
                    Ok(sized) => sized.explain_file(&pictures[place], choice),
                    Err(error) => Err(self.cannot_take(&pictures[place], [height, width], error)),
                };
                done(place, explained);
            });
        }
        Ok(())
    }

    fn cannot_take(&self, picture: &Path, [height, width]: [usize; 2], error: &Error) -> Error {
        let label = &self.predictor.label;
        let cause = match error {
            Error::Run { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        Error::Image {
            path: picture.to_owned(),
            problem: format!("{label} cannot be run on {height} x {width} pixels: {cause}"),
        }
    }
}

impl SizedExplainer {
    fn explain_file(&self, picture: &Path, choice: &Choice) -> Result<Explained, Error> {
        let image = self.predictor().intake.read(picture)?;
        let seen = self.see(&image)?;
        let of_class = |class: &usize| self.explain_class(&seen, Some(*class));
        let explanations = match choice {
            Choice::Classes(classes) => {
                classes.par_iter().map(of_class).collect::<Result<_, _>>()?
            }
            Choice::Top(count) => {
                let first = self.explain_class(&seen, None)?;
                let mut classes = self.predictor().ranked(&first.logits);
                // On ties, the class chosen by the graph comes first.
                classes.retain(|class| *class != first.class);
                classes.truncate(count - 1);
                let others: Vec<_> = classes.par_iter().map(of_class).collect::<Result<_, _>>()?;
                [vec![first], others].concat()
            }
        };
        Ok(Explained {
            image,
            explanations,
        })
    }
}
