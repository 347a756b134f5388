//! Writing: lay out, encode the structure, stream payloads from where they are.

use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::error::{TensorError, WriteError};
use crate::proto::ModelProto;
use crate::rope::Rope;
use crate::sidecar::{Sidecar, pull_in, user_of};
use crate::target::{Target, io_error, temporary};
use crate::walk::{exclusive, shared};

/// Bytes that an encoded model may have: protobuf readers take lengths as signed 32-bit numbers.
pub(crate) const LIMIT: u64 = i32::MAX as u64;

/// Where large tensors are written.
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalData {
    /// External if the original has external data or the model exceeds 2 GB
    #[default]
    Auto,
    /// In one file next to the model
    Always,
    /// In the model file
    Never,
}

/// How a model is written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Where large tensors go.
    pub external_data: ExternalData,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the model file and of the file beside it.
    pub bytes: u64,
    /// The file beside the model, if there is one.
    pub sidecar: Option<PathBuf>,
}

/// Writes a model to `path`, and its large tensors to `<path>.data` where `options` ask for it.
///
/// Payloads go from where they lie to the output and are not gathered. Both files get their names
/// when they are whole, so an output that exists is either replaced or left alone, and writing over
/// the model that is being read works. A device or a pipe is written to directly.
///
/// With external data, each initializer of at least 1,024 bytes begins at a multiple of 4,096 in
/// the one file beside the model; attributes follow where their data came from outside, or where
/// the model would pass 2 GB otherwise. Equal models and options give equal bytes.
///
/// # Errors
/// If the output cannot be written, if a model without external data would pass 2 GB, if the file
/// beside the model is another model's, or if a tensor's declaration and data do not agree.
pub fn write(
    model: &ModelProto,
    path: &Path,
    options: &WriteOptions,
) -> Result<Written, WriteError> {
    let target = Target::at(path)?;
    let external = match options.external_data {
        ExternalData::Always => true,
        ExternalData::Never => false,
        ExternalData::Auto => has_external(model) || model.encoded_len() as u64 > LIMIT,
    };
    if !external {
        let model = inlined(model)?;
        within_limit(&model)?;
        let bytes = write_model(&model, &target)?;
        return Ok(Written {
            bytes,
            sidecar: None,
        });
    }
    write_external(model, &target)
}

/// Encodes a model into memory, all tensors inside.
///
/// # Errors
/// If the model would pass 2 GB, or if it has external data that was not read.
pub fn encode(model: &ModelProto) -> Result<Bytes, WriteError> {
    let model = inlined(model)?;
    within_limit(&model)?;
    Ok(model.encode_to_vec().into())
}

fn write_external(model: &ModelProto, target: &Target) -> Result<Written, WriteError> {
    let refuse = || WriteError::NoSidecar(target.path.clone());
    let name = target.path.file_name().and_then(|name| name.to_str());
    let name = format!("{}.data", name.ok_or_else(refuse)?);

    let mut outer = model.clone();
    let mut sidecar = Sidecar::split(&mut outer, &name, false)?;
    if outer.encoded_len() as u64 > LIMIT {
        outer = model.clone();
        sidecar = Sidecar::split(&mut outer, &name, true)?;
    }
    within_limit(&outer)?;
    if sidecar.is_empty() {
        let bytes = write_model(&outer, target)?;
        return Ok(Written {
            bytes,
            sidecar: None,
        });
    }
    if !target.has_neighbours {
        return Err(refuse());
    }
    let path = target.path.with_file_name(&name);
    let replaces = path.exists();
    if replaces && let Some(model) = user_of(&name, &target.path) {
        return Err(WriteError::SidecarInUse {
            sidecar: path,
            model,
        });
    }
    let mut data = temporary(&path)?;
    sidecar.write(data.file.as_file_mut(), &path)?;
    // The data gets its name first: a model that is there has its data.
    let mut output = target.open()?;
    let bytes = stream(&outer, output.file(), &target.path)?;
    data.rename()?;
    if let Err(error) = output.finish() {
        if !replaces {
            // Report the first error.
            let _ = fs::remove_file(&path);
        }
        return Err(error);
    }
    Ok(Written {
        bytes: bytes + sidecar.bytes,
        sidecar: Some(path),
    })
}

fn write_model(model: &ModelProto, target: &Target) -> Result<u64, WriteError> {
    let mut output = target.open()?;
    let bytes = stream(model, output.file(), &target.path)?;
    output.finish()?;
    Ok(bytes)
}

/// Writes the encoded model; returns its bytes.
fn stream(model: &ModelProto, file: &mut impl Write, path: &Path) -> Result<u64, WriteError> {
    let mut rope = Rope::default();
    model.encode_raw(&mut rope);
    let mut bytes = 0;
    for piece in rope.into_pieces() {
        prefault(&piece);
        file.write_all(&piece).map_err(|e| io_error(path, e))?;
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

/// Maps the pages of a payload at once. Writing it would map them a few at a time, which takes
/// half as long again as the copy itself.
#[cfg(target_os = "linux")]
#[expect(unsafe_code)]
pub(crate) fn prefault(bytes: &[u8]) {
    use rustix::mm::{Advice, madvise};
    let offset = bytes.as_ptr().addr() % rustix::param::page_size();
    let start = bytes.as_ptr().wrapping_sub(offset);
    // SAFETY: this advice reads pages into the page table and changes nothing. The range begins
    // on the page that `bytes` begins on, so all of it is mapped.
    // A refusal (old kernels do not know it) costs time only.
    let _ = unsafe {
        madvise(
            start.cast_mut().cast(),
            bytes.len() + offset,
            Advice::LinuxPopulateRead,
        )
    };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn prefault(_: &[u8]) {}

fn within_limit(model: &ModelProto) -> Result<(), WriteError> {
    let bytes = model.encoded_len() as u64;
    if bytes > LIMIT {
        return Err(WriteError::TooLarge { bytes });
    }
    Ok(())
}

fn has_external(model: &ModelProto) -> bool {
    let visited = shared::model(model, &mut |_, _, tensor| match tensor.is_external() {
        true => Err(()),
        false => Ok(()),
    });
    visited.is_err()
}

/// The model with all tensors inside; itself if they are.
fn inlined(model: &ModelProto) -> Result<Cow<'_, ModelProto>, TensorError> {
    if !has_external(model) {
        return Ok(Cow::Borrowed(model));
    }
    let mut model = model.clone();
    exclusive::model(&mut model, &mut |_, _, tensor| pull_in(tensor))?;
    Ok(Cow::Owned(model))
}
