//! Weights as `.safetensors`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use bcosc_autodiff::training::{Exponent, State, StateKind};
use bcosc_ir::{DataType, Model, Tensor};
use bcosc_onnx::write_bytes;
use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde::{Deserialize, Serialize};

use crate::load::{Read, read};
use crate::{Error, Source, training};

/// The only metadata entry: safetensors does not order several.
const ENTRY: &str = "bcosc";

/// The metadata of a file, as JSON.
#[derive(Default, Deserialize, Serialize)]
struct Header {
    /// What each tensor is.
    kinds: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    notes: BTreeMap<String, String>,
}

/// Tensors by name, with a note on what each is.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    kinds: BTreeMap<String, StateKind>,
    /// Notes on the whole, by key.
    pub notes: BTreeMap<String, String>,
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(tensors: I) -> Self {
        Weights {
            tensors: tensors.into_iter().collect(),
            ..Weights::default()
        }
    }
}

impl Weights {
    /// Adds a tensor, with what it is.
    pub fn insert(&mut self, name: &str, kind: StateKind, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
        self.kinds.insert(name.to_owned(), kind);
    }

    /// A tensor.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Multiplies some tensors, and their moving averages, by a number.
    #[cfg(feature = "vision")]
    pub(crate) fn scale(&mut self, names: &[String], factor: f64) {
        for name in names {
            for name in [name.clone(), format!("{name}.ema")] {
                if let Some(tensor) = self.tensors.get_mut(&name)
                    && let Ok(elements) = tensor.to_f64s()
                {
                    let scaled: Vec<f64> = elements.iter().map(|x| x * factor).collect();
                    let scaled = Tensor::floats(tensor.dtype(), &tensor.dims(), &scaled);
                    *tensor = scaled.unwrap_or_else(|| tensor.clone());
                }
            }
        }
    }

    /// Parameters and statistics alone, without the state of an optimiser.
    #[cfg(feature = "vision")]
    pub(crate) fn model_only(&self) -> Self {
        let is_model = |name: &str| {
            let kind = self.kinds.get(name);
            matches!(kind, Some(StateKind::Parameter | StateKind::Statistic))
        };
        let mut found = Weights::default();
        for (name, tensor) in self.tensors.iter().filter(|(name, _)| is_model(name)) {
            found.insert(name, self.kinds[name], tensor.clone());
        }
        found
    }

    /// Adds tensors, in place of those of the same name.
    #[cfg(feature = "vision")]
    pub(crate) fn extend(&mut self, other: Weights) {
        self.tensors.extend(other.tensors);
        self.kinds.extend(other.kinds);
    }

    /// A tensor with an element that is infinite or not a number, and that element.
    #[cfg(feature = "vision")]
    pub(crate) fn not_finite(&self) -> Option<(&str, f64)> {
        self.iter().find_map(|(name, tensor)| {
            let elements = tensor.to_f64s().unwrap_or_default();
            let found = elements.into_iter().find(|x| !x.is_finite());
            found.map(|found| (name, found))
        })
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::WeightFile`] if it cannot be read, is no safetensors file, or has a type that ONNX does not have.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |problem: String| Error::WeightFile {
            path: path.to_owned(),
            problem,
        };
        let bytes = fs::read(path).map_err(|error| fail(error.to_string()))?;
        Self::decode(bytes.into()).map_err(fail)
    }

    fn decode(bytes: Bytes) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| error.to_string())?;
        let all = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
        let mut tensors = BTreeMap::new();
        for (name, view) in all.iter() {
            let dtype = data_type(view.dtype())
                .ok_or_else(|| format!("the tensor \"{name}\" is of type {:?}", view.dtype()))?;
            let dims: Vec<u64> = view.shape().iter().map(|&d| d as u64).collect();
            let data = bytes.slice_ref(view.data());
            tensors.insert(name.to_owned(), Tensor::from_bytes(dtype, &dims, data));
        }
        let entry = header.metadata().as_ref().and_then(|all| all.get(ENTRY));
        let header = entry.map_or(Ok(Header::default()), |text| serde_json::from_str(text));
        let Header { kinds, notes } =
            header.map_err(|error| format!("metadata `{ENTRY}`: {error}"))?;
        let known = |(name, kind): (String, String)| Some((name, StateKind::named(&kind)?));
        let kinds = kinds.into_iter().filter_map(known).collect();
        Ok(Weights {
            tensors,
            kinds,
            notes,
        })
    }

    /// The bytes of a `.safetensors` file.
    ///
    /// # Errors
    /// [`Error::Encode`] if safetensors does not have the type of a tensor, or one cannot be read.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let fail = |problem: &dyn std::fmt::Display| Error::encode("safetensors", problem);
        let mut held = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            let bytes = tensor.bytes().map_err(|error| fail(&error))?;
            held.push((name, tensor, bytes));
        }
        let mut views = Vec::with_capacity(held.len());
        for (name, tensor, bytes) in &held {
            let dtype = dtype(tensor.dtype())
                .ok_or_else(|| fail(&format!("\"{name}\" is of type {}", tensor.dtype())))?;
            let shape = tensor.dims().iter().map(|&d| d as usize).collect();
            let view = TensorView::new(dtype, shape, bytes).map_err(|error| fail(&error))?;
            views.push((name.as_str(), view));
        }
        let header = Header {
            kinds: self
                .kinds
                .iter()
                .map(|(name, kind)| (name.clone(), kind.name().to_owned()))
                .collect(),
            notes: self.notes.clone(),
        };
        let entry = serde_json::to_string(&header).map_err(|error| fail(&error))?;
        let plain = header.kinds.is_empty() && header.notes.is_empty();
        let metadata = (!plain).then(|| HashMap::from([(ENTRY.to_owned(), entry)]));
        serialize(views, metadata).map_err(|error| fail(&error))
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// As [`Weights::encode`], and [`Error::Write`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<u64, Error> {
        let bytes = self.encode()?;
        write_bytes(path, &bytes)?;
        Ok(bytes.len() as u64)
    }
}

fn dtype(from: DataType) -> Option<Dtype> {
    PAIRS
        .iter()
        .find(|(ours, _)| *ours == from)
        .map(|(_, theirs)| *theirs)
}

fn data_type(from: Dtype) -> Option<DataType> {
    PAIRS
        .iter()
        .find(|(_, theirs)| *theirs == from)
        .map(|(ours, _)| *ours)
}

/// The element types that ONNX and safetensors share.
const PAIRS: &[(DataType, Dtype)] = &[
    (DataType::Float, Dtype::F32),
    (DataType::Double, Dtype::F64),
    (DataType::Float16, Dtype::F16),
    (DataType::Bfloat16, Dtype::BF16),
    (DataType::Int64, Dtype::I64),
    (DataType::Int32, Dtype::I32),
    (DataType::Int16, Dtype::I16),
    (DataType::Int8, Dtype::I8),
    (DataType::Uint64, Dtype::U64),
    (DataType::Uint32, Dtype::U32),
    (DataType::Uint16, Dtype::U16),
    (DataType::Uint8, Dtype::U8),
    (DataType::Bool, Dtype::BOOL),
];

/// The weights of a model: what training would train, and the statistics of norms.
///
/// # Errors
/// As for [`crate::training_step`].
pub fn extract_weights(source: impl Into<Source>) -> Result<Weights, Error> {
    let step = training::training_step(source, &training::TrainingOptions::default())?;
    let mut weights = Weights::default();
    for State {
        input,
        kind,
        initial,
        ..
    } in step.state
    {
        if matches!(kind, StateKind::Parameter | StateKind::Statistic) {
            weights.insert(&input, kind, initial);
        }
    }
    Ok(weights)
}

/// A model with other weights.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The model.
    pub model: Model,
    /// How many of its constants are new.
    pub replaced: usize,
}

/// Replaces constants of a model by tensors of the same name. State of an optimiser is left out; with `averages`, the
/// moving average of a parameter takes its place.
///
/// # Errors
/// [`Error::Input`] if a tensor has no counterpart in the model, or another shape or type.
pub fn merge_weights(
    source: impl Into<Source>,
    weights: &Weights,
    averages: bool,
) -> Result<Merged, Error> {
    let Read {
        mut model, label, ..
    } = read(source.into(), &[])?;
    // Training gives norms that share constants constants of their own.
    let missing = |model: &Model| {
        let constant = |name: &str| {
            model
                .graph
                .value_named(name)
                .and_then(|v| model.graph.constant(v))
        };
        weights
            .of_model(averages)
            .any(|(name, _)| constant(name).is_none())
    };
    if missing(&model) {
        let learned = weights.iter().any(|(name, _)| name.ends_with(".exponent"));
        let exponent = match learned {
            true => Exponent::Learned,
            false => Exponent::Fixed,
        };
        training::prepare(&mut model, exponent, &label)?;
    }
    let replaced = replace(&mut model, weights, averages, &label)?;
    Ok(Merged { model, replaced })
}

/// Replaces constants of a model by tensors of the same name; returns how many.
pub(crate) fn replace(
    model: &mut Model,
    weights: &Weights,
    averages: bool,
    label: &str,
) -> Result<usize, Error> {
    let problem = |problem: String| Error::Input {
        model: label.to_owned(),
        problem,
    };
    let mut replaced = 0;
    for (name, tensor) in weights.of_model(averages) {
        let graph = &mut model.graph;
        let place = graph.value_named(name);
        let Some((place, old)) = place.and_then(|v| Some((v, graph.constant(v)?))) else {
            return Err(problem(format!(
                "there is no weight \"{name}\" in the model"
            )));
        };
        if old.tensor_type() != tensor.tensor_type() {
            return Err(problem(format!(
                "the weight \"{name}\" is {} {:?} in the model, and {} {:?} in the file",
                old.dtype(),
                old.dims(),
                tensor.dtype(),
                tensor.dims()
            )));
        }
        let changed = graph.promote(place).map(|_| ());
        let changed = changed.and_then(|()| graph.bind(place, tensor.clone()));
        changed.map_err(|error| problem(error.to_string()))?;
        replaced += 1;
    }
    if replaced == 0 {
        return Err(problem("no weight was given for it".to_owned()));
    }
    Ok(replaced)
}

impl Weights {
    /// The tensors that belong into a model, by the name they have there.
    fn of_model(&self, averages: bool) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .filter_map(move |(name, tensor)| match self.kinds.get(name) {
                Some(StateKind::Optimiser | StateKind::Average) => None,
                Some(StateKind::Parameter) if averages => {
                    let average = self.tensors.get(&format!("{name}.ema"));
                    Some((name.as_str(), average.unwrap_or(tensor)))
                }
                _ => Some((name.as_str(), tensor)),
            })
    }
}
