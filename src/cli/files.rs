//! Files other than models.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bcosc::Error;
use tempfile::Builder;

use super::interrupt;

/// Writes a file; it gets its name when it is whole. What is not a file, such as a pipe, is written to.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let _writing = interrupt::writing();
    let is_stream = fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
    let written = match is_stream {
        true => fs::write(path, bytes),
        false => replace(path, bytes),
    };
    written.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    // Opened here, so that it has the permissions of any new file and not the owner's alone.
    let mut file = Builder::new()
        .prefix(".bcosc-")
        .suffix(".tmp")
        .make_in(folder.unwrap_or(Path::new(".")), |path| {
            File::create_new(path)
        })?;
    file.write_all(bytes)?;
    file.flush()?;
    file.persist(path)?;
    Ok(())
}
