//! Checkpoints of a training run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::measure::Measured;
use crate::replace::replace;
use crate::{Error, Weights};

/// The note of the file with a [`Place`].
const PLACE: &str = "checkpoint";

/// The file of the newest checkpoint.
pub(super) const LAST: &str = "last.safetensors";
/// The file of the checkpoint with the best score.
pub(super) const BEST: &str = "best.safetensors";

/// Where a run stands, and what it must be continued with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Steps done.
    pub step: u64,
    /// The best score so far.
    pub best: Option<f64>,
    /// The evaluation before the first step.
    pub before: Option<Measured>,
    /// The last evaluation after it.
    pub after: Option<Measured>,
    /// The step of the last evaluation. A run may be interrupted at a step at which one is due.
    #[serde(default)]
    pub evaluated: u64,
    /// Everything that the result depends on, by name.
    pub settings: Vec<(String, String)>,
}

impl Place {
    /// Writes a checkpoint. One that was there stays until the new one is whole.
    pub fn write(&self, weights: &Weights, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|error| Error::encode("checkpoint", error))?;
        let mut weights = weights.clone();
        weights.notes.insert(PLACE.to_owned(), text);
        let bytes = weights.encode()?;
        replace(path, &bytes).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a checkpoint.
    pub fn read(path: &Path) -> Result<(Self, Weights), Error> {
        let weights = Weights::read(path)?;
        let fail = |problem: String| Error::WeightFile {
            path: path.to_owned(),
            problem,
        };
        let text = weights.notes.get(PLACE);
        let text =
            text.ok_or_else(|| fail("this is not a checkpoint of `bcosc train`".to_owned()))?;
        let place = serde_json::from_str(text).map_err(|error| fail(error.to_string()))?;
        Ok((place, weights))
    }

    /// Fails if a run with other settings would go on from here.
    pub fn check(&self, settings: &[(String, String)], path: &Path) -> Result<(), Error> {
        let changed = settings.iter().find(|(name, value)| {
            let before = self.settings.iter().find(|(other, _)| other == name);
            before.is_none_or(|(_, before)| before != value)
        });
        let Some((name, value)) = changed else {
            return Ok(());
        };
        let before = self.settings.iter().find(|(other, _)| other == name);
        let before = before.map_or("unknown", |(_, before)| before.as_str());
        Err(Error::WeightFile {
            path: path.to_owned(),
            problem: format!(
                "the run was started with {name} = {before}, not {value}; use the same options, or another --work-dir"
            ),
        })
    }
}

/// The path of the newest checkpoint in a folder.
pub(super) fn last(folder: &Path) -> PathBuf {
    folder.join(LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = last(folder.path());
        // A parser that rounds loses the last bit of some of these.
        for score in bcosc_testing::noise(5, 200) {
            let place = Place {
                best: Some(score / 3.0),
                ..Place::default()
            };
            place.write(&Weights::default(), &path).unwrap();
            assert_eq!(Place::read(&path).unwrap().0, place);
        }
    }
}
