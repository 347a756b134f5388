//! Reading: map, scan, decode, then tie tensors to their data.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::Mmap;
use prost::Message;

use crate::error::{ExternalProblem, ReadError, ReadErrorKind};
use crate::external::Folder;
use crate::proto::{ModelProto, TensorProto};
use crate::scan::{UnknownField, scan};
use crate::sniff::sniff;
use crate::walk::exclusive;

/// A model as read from a file or bytes.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The model. Payloads are slices of the mapped file or of the bytes that were given.
    pub model: ModelProto,
    /// The path; `None` for a model in memory.
    pub path: Option<PathBuf>,
    /// Bytes of the model file and of all files that its external data is in.
    pub bytes: u64,
    /// Fields that this version of the schema does not have. The model has lost them.
    pub unknown_fields: Vec<UnknownField>,
}

/// Reads a model file, without copying its weights.
///
/// The file and its external data files are mapped, and stay mapped as long as any payload of them
/// is alive. They must not be cut short meanwhile: a map has no way to report that, and the system
/// ends the process. Replacing a file (as [`crate::write()`] does) is fine.
///
/// A tensor with external data gets its bytes in `raw_data` and keeps `data_location` and
/// `external_data`, see [`TensorProto::is_external`].
///
/// # Errors
/// If the file cannot be read, is not an ONNX model, is damaged, points outside its folder, or
/// declares tensors that its data does not match.
pub fn read(path: &Path) -> Result<ModelFile, ReadError> {
    let fail = |kind| ReadError::new(Some(path), kind);
    let bytes = open(path).map_err(fail)?;
    let mut file = parse(bytes).map_err(fail)?;
    file.path = Some(path.to_path_buf());
    let mut folder = Folder::of(path);
    tie(&mut file.model, |tensor, place| {
        folder.resolve(tensor, place)
    })
    .map_err(fail)?;
    file.bytes += folder.bytes();
    Ok(file)
}

/// Reads a model in memory, without copying its weights.
///
/// # Errors
/// As [`read()`]; external data is an error, since there is no folder to look in.
pub fn decode(bytes: Bytes) -> Result<ModelFile, ReadError> {
    let fail = |kind| ReadError::new(None, kind);
    let mut file = parse(bytes).map_err(fail)?;
    tie(&mut file.model, |tensor, place| {
        Err(ReadErrorKind::External {
            tensor: tensor.name.clone().unwrap_or_default(),
            place: place(),
            problem: ExternalProblem::InMemory,
        })
    })
    .map_err(fail)?;
    Ok(file)
}

/// The structure of a model file, with external data left where it is and nothing checked. `None`
/// for what is not a model.
pub(crate) fn structure(path: &Path) -> Option<ModelProto> {
    open(path).and_then(parse).ok().map(|file| file.model)
}

fn open(path: &Path) -> Result<Bytes, ReadErrorKind> {
    // Check before opening: opening a pipe would block.
    let metadata = fs::metadata(path).map_err(ReadErrorKind::Io)?;
    if metadata.is_dir() {
        return Err(ReadErrorKind::Folder);
    }
    if !metadata.is_file() {
        return Err(ReadErrorKind::NotRegular);
    }
    let file = File::open(path).map_err(ReadErrorKind::Io)?;
    map(&file).map_err(ReadErrorKind::Io)
}

/// The content of a file as a memory map, which sees what becomes of the file later. A file that becomes shorter ends the
/// process when the lost part is read.
///
/// # Errors
/// If the file cannot be mapped.
#[expect(unsafe_code)]
pub fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is only ever read. If someone truncates the file meanwhile, touching the lost part ends the process, which
    // is documented here and in `read`; if someone writes into it, bytes change, and nothing relies on their values: all
    // lengths and the structure of a model are copied out while decoding, with bounds checked at each use.
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

fn parse(bytes: Bytes) -> Result<ModelFile, ReadErrorKind> {
    // Guess the format only after a failure: some models start like other formats.
    let instead = |kind| sniff(&bytes).map_or(kind, ReadErrorKind::NotOnnx);
    let unknown_fields = scan(&bytes).map_err(instead)?;
    let model = ModelProto::decode(bytes.clone()).map_err(|e| instead(ReadErrorKind::Decode(e)))?;
    if model.graph.is_none() {
        return Err(instead(ReadErrorKind::NoGraph));
    }
    Ok(ModelFile {
        model,
        path: None,
        bytes: bytes.len() as u64,
        unknown_fields,
    })
}

/// Checks every tensor's size against its data, and has `external` fetch what is outside.
fn tie(
    model: &mut ModelProto,
    mut external: impl FnMut(&mut TensorProto, &dyn Fn() -> String) -> Result<(), ReadErrorKind>,
) -> Result<(), ReadErrorKind> {
    exclusive::model(model, &mut |_, trail, tensor| {
        let place = || trail.to_string();
        if tensor.is_external() {
            return external(tensor, &place);
        }
        // Nobody but the user of the tensor needs to know its type, and a segment may be a part
        // of anything: such tensors pass, and the error comes where elements are asked for.
        let checked = match tensor.dtype() {
            Ok(_) if tensor.segment.is_none() => tensor.check(),
            _ => tensor.element_count().map(drop),
        };
        checked.map_err(|error| ReadErrorKind::Tensor {
            place: place(),
            error,
        })
    })
}
