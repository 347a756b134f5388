//! Where output goes: a temporary file beside its final name, renamed when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::WriteError;

/// Standard output as a path. It is written to as it stands, wherever it leads.
pub const STDOUT: &str = "/dev/stdout";

/// Whether a path is one of the names of standard output.
pub fn is_stdout(path: &Path) -> bool {
    let names = [STDOUT, "/dev/fd/1", "/proc/self/fd/1"];
    names.iter().any(|name| path == Path::new(name))
}

/// Writes any file as models are written: it gets its name when it is whole.
///
/// # Errors
/// [`WriteError::NotAFile`] if the path is that of a folder, [`WriteError::Io`] if it cannot be written.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut output = Target::at(path)?.open()?;
    let written = output.file().write_all(bytes);
    written.map_err(|e| io_error(path, e))?;
    output.finish()
}

/// An output path and what stands there.
pub(crate) struct Target {
    /// The path without symbolic links in its last part.
    pub(crate) path: PathBuf,
    /// Whether a file can be beside it and be found from it.
    pub(crate) has_neighbours: bool,
    kind: Kind,
}

/// How a target is written.
enum Kind {
    /// By a file that replaces it.
    File,
    /// As it stands: a device or a pipe.
    Stream,
    /// As this process already has it.
    Stdout,
}

impl Target {
    /// Looks at `path`. A symbolic link stays and the file after it is replaced.
    pub(crate) fn at(path: &Path) -> Result<Self, WriteError> {
        if path.file_name().is_none() {
            return Err(WriteError::NotAFile(path.to_path_buf()));
        }
        // A pipe has no path to be looked up.
        let found = fs::metadata(path).ok();
        let is_stream = found.is_some_and(|m| !m.is_file() && !m.is_dir());
        if is_stream || is_stdout(path) {
            return Ok(Self {
                path: path.to_path_buf(),
                has_neighbours: false,
                kind: match is_stdout(path) {
                    true => Kind::Stdout,
                    false => Kind::Stream,
                },
            });
        }
        let linked = fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
        let real = if linked {
            fs::canonicalize(path).map_err(|e| io_error(path, e))?
        } else {
            path.to_path_buf()
        };
        // What cannot be looked at is not there, or the temporary file will say why.
        let found = fs::metadata(&real).ok();
        if found.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(WriteError::NotAFile(path.to_path_buf()));
        }
        Ok(Self {
            path: real,
            has_neighbours: !linked,
            kind: Kind::File,
        })
    }

    /// Opens the target for writing.
    pub(crate) fn open(&self) -> Result<Output, WriteError> {
        let file = match self.kind {
            Kind::File => return Ok(Output::Temporary(temporary(&self.path)?)),
            Kind::Stream => OpenOptions::new().write(true).open(&self.path),
            Kind::Stdout => stdout(),
        };
        Ok(Output::Stream(file.map_err(|e| io_error(&self.path, e))?))
    }
}

/// Standard output as a file, which goes on where others stopped writing.
fn stdout() -> io::Result<File> {
    #[cfg(unix)]
    let held = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let held = std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?;
    Ok(File::from(held))
}

/// A target that is being written.
pub(crate) enum Output {
    Stream(File),
    Temporary(Temporary),
}

impl Output {
    pub(crate) fn file(&mut self) -> &mut File {
        match self {
            Output::Stream(file) => file,
            Output::Temporary(temporary) => temporary.file.as_file_mut(),
        }
    }

    /// Gives the output its name.
    pub(crate) fn finish(self) -> Result<(), WriteError> {
        match self {
            Output::Stream(_) => Ok(()),
            Output::Temporary(temporary) => temporary.rename(),
        }
    }
}

/// A file that disappears unless it is renamed to its final name.
pub(crate) struct Temporary {
    pub(crate) file: NamedTempFile,
    path: PathBuf,
}

impl Temporary {
    pub(crate) fn rename(self) -> Result<(), WriteError> {
        match self.file.persist(&self.path) {
            Ok(_) => Ok(()),
            Err(e) => Err(io_error(&self.path, e.error)),
        }
    }
}

/// A temporary file in the folder of `path`, with the permissions of any new file.
pub(crate) fn temporary(path: &Path) -> Result<Temporary, WriteError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    // Opened here, so that it has the permissions of any new file and not the owner's alone.
    let file = Builder::new()
        .prefix(".bcosc-")
        .suffix(".tmp")
        .make_in(parent.unwrap_or(Path::new(".")), |path| {
            File::create_new(path)
        })
        .map_err(|e| io_error(path, e))?;
    Ok(Temporary {
        file,
        path: path.to_path_buf(),
    })
}

pub(crate) fn io_error(path: &Path, error: io::Error) -> WriteError {
    WriteError::Io {
        path: path.to_path_buf(),
        error,
    }
}
