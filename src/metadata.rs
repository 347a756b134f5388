//! The metadata of a converted model.

use std::collections::BTreeMap;
use std::str::FromStr;

use bcosc_ir::Model;
use bcosc_passes::bcos::layers::{B, B_LAYERS};
use bcosc_passes::{InputContract, Normalization};
use serde::Serialize;

use crate::Error;
use crate::options::contract_name;

/// The `metadata_props` entries of a converted model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metadata {
    /// Version of bcosc that made the model: `bcosc.version`.
    pub version: String,
    /// The recipe: `bcosc.recipe`.
    pub recipe: String,
    /// Exponent of the B-cos transform: `bcosc.b`.
    pub b: f64,
    /// B of the layers that have another one, by name: `bcosc.b_layers`, a JSON object.
    pub b_layers: BTreeMap<String, f64>,
    /// Form of the model's input: `bcosc.input`.
    pub input: InputContract,
    /// Mean that the original's input was normalised with, one number per channel; empty where it
    /// was not said: `bcosc.mean`.
    pub mean: Vec<f64>,
    /// Standard deviation, as the mean: `bcosc.std`.
    pub std: Vec<f64>,
    /// Whether the normalisation is part of the first layer: `bcosc.normalization_absorbed`.
    pub normalization_absorbed: bool,
    /// What is added to every class logit; 0 where nothing is: `bcosc.logit_bias`.
    pub logit_bias: f64,
    /// Whether biases were left in as constants: `bcosc.biases_kept`.
    pub biases_kept: bool,
    /// Whether biases are weights of x + (1-x): `bcosc.biases` is `carry`.
    pub biases_carried: bool,
    /// Whether the graph has the form for fast inference on the CPU with ONNX Runtime: `bcosc.deploy`.
    pub deploy: bool,
}

const VERSION: &str = "bcosc.version";
const RECIPE: &str = "bcosc.recipe";
const INPUT: &str = "bcosc.input";
const MEAN: &str = "bcosc.mean";
const STD: &str = "bcosc.std";
const ABSORBED: &str = "bcosc.normalization_absorbed";
pub(crate) const LOGIT_BIAS: &str = "bcosc.logit_bias";
pub(crate) const BIASES_KEPT: &str = "bcosc.biases_kept";
const BIASES: &str = "bcosc.biases";
const CARRY: &str = "carry";
const DEPLOY: &str = "bcosc.deploy";

impl Metadata {
    /// Writes the entries into a model.
    pub fn write(&self, model: &mut Model) {
        let mut set = |key, value: &str| model.set_metadata(key, value);
        set(VERSION, &self.version);
        set(RECIPE, &self.recipe);
        set(B, &self.b.to_string());
        if !self.b_layers.is_empty() {
            set(
                B_LAYERS,
                &serde_json::to_string(&self.b_layers).unwrap_or_default(),
            );
        }
        set(INPUT, contract_name(self.input));
        if !self.mean.is_empty() {
            set(MEAN, &join(&self.mean));
            set(STD, &join(&self.std));
        }
        set(ABSORBED, &self.normalization_absorbed.to_string());
        set(LOGIT_BIAS, &self.logit_bias.to_string());
        set(BIASES_KEPT, &self.biases_kept.to_string());
        if self.biases_carried {
            set(BIASES, CARRY);
        }
        set(DEPLOY, &self.deploy.to_string());
    }

    /// The normalisation of the original's input, where it was said.
    pub fn normalization(&self) -> Option<Normalization> {
        let known = !self.mean.is_empty() && !self.std.is_empty();
        known.then(|| Normalization {
            mean: self.mean.clone(),
            std: self.std.clone(),
        })
    }

    /// Reads the entries of a model; `None` for a model that bcosc has not converted. `label` names
    /// the model in errors.
    ///
    /// # Errors
    /// [`Error::Metadata`] if an entry is not what bcosc writes.
    pub fn read(model: &Model, label: &str) -> Result<Option<Self>, Error> {
        if model.metadata(B).is_none() {
            return Ok(None);
        }
        let entries = Entries { model, label };
        let contract = entries.text(INPUT, "same");
        let input = [
            InputContract::Same,
            InputContract::AddInverse,
            InputContract::Rgb,
        ]
        .into_iter()
        .find(|c| contract_name(*c) == contract)
        .ok_or_else(|| entries.error(INPUT, contract, "`same`, `add-inverse` or `rgb`"))?;
        Ok(Some(Metadata {
            version: entries.text(VERSION, "").to_owned(),
            recipe: entries.text(RECIPE, "").to_owned(),
            b: entries.parse(B, 1.0, "a number")?,
            b_layers: match model.metadata(B_LAYERS) {
                Some(text) => serde_json::from_str(text)
                    .map_err(|_| entries.error(B_LAYERS, text, "an object of numbers by name"))?,
                None => BTreeMap::new(),
            },
            input,
            mean: entries.numbers(MEAN)?,
            std: entries.numbers(STD)?,
            normalization_absorbed: entries.parse(ABSORBED, false, "`true` or `false`")?,
            logit_bias: entries.parse(LOGIT_BIAS, 0.0, "a number")?,
            biases_kept: entries.parse(BIASES_KEPT, false, "`true` or `false`")?,
            biases_carried: match entries.text(BIASES, "") {
                "" => false,
                CARRY => true,
                other => return Err(entries.error(BIASES, other, "`carry`")),
            },
            deploy: entries.parse(DEPLOY, false, "`true` or `false`")?,
        }))
    }
}

struct Entries<'a> {
    model: &'a Model,
    label: &'a str,
}

impl<'a> Entries<'a> {
    fn text(&self, key: &str, default: &'static str) -> &'a str {
        self.model.metadata(key).unwrap_or(default)
    }

    fn parse<T: FromStr>(
        &self,
        key: &'static str,
        default: T,
        expected: &'static str,
    ) -> Result<T, Error> {
        match self.model.metadata(key) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| self.error(key, value, expected)),
        }
    }

    fn numbers(&self, key: &'static str) -> Result<Vec<f64>, Error> {
        let Some(value) = self.model.metadata(key) else {
            return Ok(Vec::new());
        };
        let numbers: Result<_, _> = value.split(',').map(|n| n.trim().parse()).collect();
        numbers.map_err(|_| self.error(key, value, "a list of numbers"))
    }

    fn error(&self, key: &'static str, value: &str, expected: &'static str) -> Error {
        Error::Metadata {
            model: self.label.to_owned(),
            key,
            value: value.to_owned(),
            expected,
        }
    }
}

fn join(numbers: &[f64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(f64::to_string).collect();
    numbers.join(",")
}
