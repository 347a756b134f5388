//! The external data file next to a model.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::mem::take;
use std::path::{Component, Path, PathBuf};

use crate::DataType;
use crate::error::{TensorError, WriteError};
use crate::proto::{ModelProto, StringStringEntryProto, TensorProto};
use crate::read::structure;
use crate::tensor::EXTERNAL;
use crate::walk::{Role, exclusive, shared};
use crate::write::prefault;

/// Smaller tensors stay in the model file, as ONNX's own tools and PyTorch keep them: there they
/// are in reach of shape inference, and a page each would be waste.
const SMALLEST: u64 = 1024;

/// Where tensors may begin. ONNX asks for multiples of the page size, so that a tensor can be
/// mapped alone; elements are aligned for every type then, too.
const ALIGNMENT: u64 = 4096;

/// The tensors that are outside a model file, and where.
pub(crate) struct Sidecar {
    parts: Vec<Part>,
    /// Bytes of the whole file.
    pub(crate) bytes: u64,
}

struct Part {
    offset: u64,
    /// Shape, type and data of a tensor, and nothing else of it. The bytes are made when they are
    /// written, so that at most one tensor is held in two forms.
    data: TensorProto,
}

impl Sidecar {
    /// Moves the data of large tensors out of `model`, which then refers to a file called `name`.
    /// Attributes keep theirs, unless it came from outside or `attributes` is set.
    pub(crate) fn split(
        model: &mut ModelProto,
        name: &str,
        attributes: bool,
    ) -> Result<Self, TensorError> {
        let mut sidecar = Sidecar {
            parts: Vec::new(),
            bytes: 0,
        };
        // Tensors that share their bytes in memory share them in the file.
        let mut shared = HashMap::new();
        exclusive::model(model, &mut |role, _, tensor| {
            let may = role == Role::Initializer || tensor.is_external() || attributes;
            if !may || tensor.segment.is_some() || !has_fixed_size(tensor) {
                return pull_in(tensor);
            }
            tensor.check()?;
            let length = tensor.byte_len()?;
            if length < SMALLEST {
                return pull_in(tensor);
            }
            let data = take_data(tensor);
            let key = data.raw_data.as_ref().map(|raw| (raw.as_ptr(), length));
            let offset = match key.and_then(|key| shared.get(&key)) {
                Some(&offset) => offset,
                None => sidecar.add(data, length),
            };
            if let Some(key) = key {
                shared.insert(key, offset);
            }
            tensor.data_location = Some(EXTERNAL);
            tensor.external_data = entries(name, offset, length);
            Ok(())
        })?;
        Ok(sidecar)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn add(&mut self, data: TensorProto, length: u64) -> u64 {
        let offset = self.bytes.next_multiple_of(ALIGNMENT);
        self.parts.push(Part { offset, data });
        self.bytes = offset + length;
        offset
    }

    /// Writes the file's content to `file`, whose name for errors is `path`.
    pub(crate) fn write(&self, file: &mut impl Write, path: &Path) -> Result<(), WriteError> {
        let io = |error| WriteError::Io {
            path: path.to_path_buf(),
            error,
        };
        let mut at = 0;
        for part in &self.parts {
            zeros(file, part.offset - at).map_err(io)?;
            let bytes = part.data.payload()?;
            prefault(&bytes);
            file.write_all(&bytes).map_err(io)?;
            at = part.offset + bytes.len() as u64;
        }
        Ok(())
    }
}

/// Makes a tensor that came from outside an ordinary one; its bytes are in `raw_data` already.
pub(crate) fn pull_in(tensor: &mut TensorProto) -> Result<(), TensorError> {
    if tensor.is_external() {
        tensor.check()?;
        tensor.data_location = None;
        tensor.external_data = Vec::new();
    }
    Ok(())
}

/// A model other than `except`, in the same folder, whose external data is in a file called
/// `name`; the first one in the order of names.
pub(crate) fn user_of(name: &str, except: &Path) -> Option<PathBuf> {
    let parent = except.parent().filter(|p| !p.as_os_str().is_empty());
    let models = fs::read_dir(parent.unwrap_or(Path::new("."))).ok()?;
    let mut models: Vec<PathBuf> = models
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
        })
        .filter(|path| path.file_name() != except.file_name())
        .collect();
    models.sort();
    models
        .into_iter()
        .find(|path| structure(path).is_some_and(|model| refers_to(&model, name)))
}

fn refers_to(model: &ModelProto, name: &str) -> bool {
    let names = |location: &str| {
        let mut parts = Path::new(location)
            .components()
            .filter(|part| *part != Component::CurDir);
        parts.next() == Some(Component::Normal(name.as_ref())) && parts.next().is_none()
    };
    let visited = shared::model(model, &mut |_, _, tensor| {
        let mut entries = tensor.external_data.iter();
        let found = entries.any(|entry| {
            entry.key.as_deref() == Some("location") && entry.value.as_deref().is_some_and(names)
        });
        if found { Err(()) } else { Ok(()) }
    });
    visited.is_err()
}

fn has_fixed_size(tensor: &TensorProto) -> bool {
    tensor.dtype().is_ok_and(|t| t != DataType::String)
}

fn take_data(tensor: &mut TensorProto) -> TensorProto {
    TensorProto {
        dims: tensor.dims.clone(),
        data_type: tensor.data_type,
        name: tensor.name.clone(),
        raw_data: tensor.raw_data.take(),
        float_data: take(&mut tensor.float_data),
        int32_data: take(&mut tensor.int32_data),
        int64_data: take(&mut tensor.int64_data),
        double_data: take(&mut tensor.double_data),
        uint64_data: take(&mut tensor.uint64_data),
        ..Default::default()
    }
}

fn entries(location: &str, offset: u64, length: u64) -> Vec<StringStringEntryProto> {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_string()),
        value: Some(value),
    };
    vec![
        entry("location", location.to_string()),
        entry("offset", offset.to_string()),
        entry("length", length.to_string()),
    ]
}

fn zeros(file: &mut impl Write, count: u64) -> io::Result<()> {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    // A gap is shorter than the alignment.
    file.write_all(&ZEROS[..count as usize])
}
