//! External data: finds the files that tensors point to, inside the model's folder only, and maps
//! each once.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::error::{ExternalProblem, ReadErrorKind};
use crate::proto::TensorProto;
use crate::read::map;

/// The folder of a model and the files of it that tensors point to.
pub(crate) struct Folder {
    /// The folder as the user named it.
    path: PathBuf,
    /// The same without symbolic links, once it is needed.
    canonical: Option<PathBuf>,
    /// By location as the model gives it: places that name the same file share one map.
    by_location: HashMap<String, Bytes>,
    by_file: HashMap<PathBuf, Bytes>,
}

impl Folder {
    /// The folder that a model file is in.
    pub(crate) fn of(model: &Path) -> Self {
        let parent = model.parent().filter(|p| !p.as_os_str().is_empty());
        Self {
            path: parent.unwrap_or(Path::new(".")).to_path_buf(),
            canonical: None,
            by_location: HashMap::new(),
            by_file: HashMap::new(),
        }
    }

    /// Bytes of all files opened so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.by_file.values().map(|map| map.len() as u64).sum()
    }

    /// Sets `raw_data` to the tensor's part of the file it points to. What the tensor declares is
    /// checked first, so a false size costs nothing.
    pub(crate) fn resolve(
        &mut self,
        tensor: &mut TensorProto,
        place: impl Fn() -> String,
    ) -> Result<(), ReadErrorKind> {
        let wrap = |error| ReadErrorKind::Tensor {
            place: place(),
            error,
        };
        let declared = tensor.byte_len().map_err(wrap)?;
        let slice = self.slice(tensor, declared);
        let slice = slice.map_err(|problem| ReadErrorKind::External {
            tensor: tensor.name.clone().unwrap_or_default(),
            place: place(),
            problem,
        })?;
        tensor.raw_data = Some(slice);
        tensor.check().map_err(wrap)
    }

    fn slice(&mut self, tensor: &TensorProto, declared: u64) -> Result<Bytes, ExternalProblem> {
        if tensor.raw_data.as_ref().is_some_and(|raw| !raw.is_empty()) {
            return Err(ExternalProblem::Both);
        }
        let location = entry(tensor, "location")?.filter(|l| !l.is_empty());
        let location = location.ok_or(ExternalProblem::NoLocation)?;
        let offset = number(tensor, "offset")?.unwrap_or(0);
        let length = number(tensor, "length")?.unwrap_or(declared);
        if length != declared {
            return Err(ExternalProblem::WrongLength { length, declared });
        }
        let file = self.file(location)?;
        let end = u128::from(offset) + u128::from(length);
        if end > file.len() as u128 {
            return Err(ExternalProblem::Short {
                location: location.to_string(),
                offset,
                end,
                size: file.len() as u64,
            });
        }
        // Both are within the map, so they fit `usize`.
        Ok(file.slice(offset as usize..end as usize))
    }

    /// The map of the file at `location`.
    fn file(&mut self, location: &str) -> Result<Bytes, ExternalProblem> {
        if let Some(map) = self.by_location.get(location) {
            return Ok(map.clone());
        }
        let plain = |c| matches!(c, Component::Normal(_) | Component::CurDir);
        if !Path::new(location).components().all(plain) {
            return Err(ExternalProblem::BadLocation(location.to_string()));
        }
        let io = |error| ExternalProblem::Io {
            location: location.to_string(),
            error,
        };
        let folder = match &self.canonical {
            Some(folder) => folder,
            None => {
                let folder = fs::canonicalize(&self.path).map_err(io)?;
                self.canonical.insert(folder)
            }
        };
        let target = fs::canonicalize(folder.join(location)).map_err(io)?;
        if !target.starts_with(folder) {
            return Err(ExternalProblem::Outside {
                location: location.to_string(),
                target,
            });
        }
        let map = match self.by_file.get(&target) {
            Some(map) => map.clone(),
            None => {
                let map = open(&target, location)?;
                self.by_file.insert(target, map.clone());
                map
            }
        };
        self.by_location.insert(location.to_string(), map.clone());
        Ok(map)
    }
}

fn open(target: &Path, location: &str) -> Result<Bytes, ExternalProblem> {
    let io = |error: io::Error| ExternalProblem::Io {
        location: location.to_string(),
        error,
    };
    // Looked at before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(target).map_err(io)?.is_file() {
        return Err(ExternalProblem::NotRegular(location.to_string()));
    }
    map(&File::open(target).map_err(io)?).map_err(io)
}

/// The value of a key, which must not stand twice.
fn entry<'a>(
    tensor: &'a TensorProto,
    key: &'static str,
) -> Result<Option<&'a str>, ExternalProblem> {
    let mut values = tensor
        .external_data
        .iter()
        .filter(|e| e.key.as_deref() == Some(key))
        .map(|e| e.value.as_deref().unwrap_or_default());
    let value = values.next();
    match values.next() {
        Some(_) => Err(ExternalProblem::Twice(key)),
        None => Ok(value),
    }
}

fn number(tensor: &TensorProto, key: &'static str) -> Result<Option<u64>, ExternalProblem> {
    let Some(value) = entry(tensor, key)? else {
        return Ok(None);
    };
    // `parse` alone would take a sign.
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(ExternalProblem::BadNumber {
            key,
            value: value.to_string(),
        }),
    }
}
