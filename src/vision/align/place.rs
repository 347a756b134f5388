//! Checkpoints of an alignment.

use std::path::{Path, PathBuf};

use bcosc_passes::Settings;
use serde::{Deserialize, Serialize};

use super::events::Phased;
use super::options::AlignOptions;
use super::phases::Phase;
use super::prepare::Prepared;
use crate::{Error, Weights};

/// The note of the file with a [`Place`].
const PLACE: &str = "alignment";

/// The file of the newest checkpoint.
const LAST: &str = "last.safetensors";

/// Where an alignment stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The phase.
    pub phase: usize,
    /// Steps done in it.
    pub step: u64,
    /// Steps done in all.
    pub total: u64,
    /// Steps of the phase, where a budget of time has set them.
    pub steps: Option<u64>,
    /// Batches whose features are kept, where segments have begun.
    pub batches: Option<usize>,
    /// Error at its first step, and over its last ones.
    pub errors: Vec<f64>,
    /// Phases that are done.
    pub done: Vec<Phased>,
    /// Everything that the result depends on, by name.
    pub settings: Vec<(String, String)>,
}

impl Place {
    /// Writes a checkpoint atomically: the parameters as they are, and the state of the phase.
    pub fn write(&self, weights: &Weights, folder: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(self);
        let text = text.map_err(|error| Error::encode("checkpoint", error))?;
        let mut weights = weights.clone();
        weights.notes.insert(PLACE.to_owned(), text);
        weights.write(&path(folder))?;
        Ok(())
    }

    /// Reads the checkpoint of a folder, if there is one, and checks that it was made with the same settings.
    pub fn read(
        folder: &Path,
        settings: &[(String, String)],
    ) -> Result<Option<(Self, Weights)>, Error> {
        let path = path(folder);
        if !path.exists() {
            return Ok(None);
        }
        let weights = Weights::read(&path)?;
        let fail = |problem: String| Error::WeightFile {
            path: path.clone(),
            problem,
        };
        let text = weights.notes.get(PLACE);
        let text =
            text.ok_or_else(|| fail("this is not a checkpoint of an alignment".to_owned()))?;
        let place: Place = serde_json::from_str(text).map_err(|error| fail(error.to_string()))?;
        for (name, value) in settings {
            let before = place.settings.iter().find(|(other, _)| other == name);
            let before = before.map_or("unknown", |(_, before)| before.as_str());
            if before != value {
                return Err(fail(format!(
                    "the alignment was started with {name} = {before}, not {value}; use the same options, or another --work-dir"
                )));
            }
        }
        Ok(Some((place, weights)))
    }
}

/// The path of the newest checkpoint in a folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(LAST)
}

/// What the result depends on, by name.
pub(super) fn settings(
    prepared: &Prepared,
    options: &AlignOptions,
    phases: &[Phase],
) -> Vec<(String, String)> {
    let steps: Vec<u64> = phases.iter().map(|phase| phase.planned.steps).collect();
    let settings = &options.conversion.settings;
    let settings = Settings {
        biases: Some(settings.biases()),
        ..settings.clone()
    };
    let entries = [
        ("--method", format!("{:?}", options.method)),
        (
            "the number of segments",
            prepared.segments.len().to_string(),
        ),
        ("--taps", options.taps().to_string()),
        ("the steps", format!("{steps:?}")),
        (
            "--lr",
            format!("{} {}", options.block_rate(), options.joint_rate()),
        ),
        ("--train-lr", options.train_rate.to_string()),
        ("--calibrate-images", options.calibration_images.to_string()),
        ("--warmup", format!("{:?}", options.warmup)),
        ("--b-from", format!("{:?}", options.growth)),
        ("--bias-decay", format!("{:?}", options.bias_decay)),
        (
            "--norm-statistics",
            format!("{:?}", options.norm_statistics),
        ),
        ("--norm-momentum", format!("{:?}", options.norm_momentum)),
        ("--freeze", format!("{:?}", options.freeze)),
        ("--precision", format!("{:?}", options.precision)),
        ("--batch-size", prepared.batch_size().to_string()),
        ("--seed", options.seed.to_string()),
        ("--budget", format!("{:?}", options.budget)),
        ("--then-train", options.then_train.to_string()),
        ("--train-on", format!("{:?}", options.train_on)),
        (
            "the number of images",
            prepared.pictures.train.len().to_string(),
        ),
        ("the image size", format!("{:?}", prepared.size)),
        ("the augmentation", format!("{:?}", options.augmentation)),
        ("the conversion", format!("{settings:?}")),
    ];
    let owned = entries.map(|(name, value)| (name.to_owned(), value));
    owned.to_vec()
}
