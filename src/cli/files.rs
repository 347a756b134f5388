//! Output files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use bcosc::Error;
use bcosc_onnx::{STDOUT, is_stdout};

use super::interrupt;

/// The stream for tables: stderr if a result goes to standard output or a pipe, otherwise stdout.
pub fn for_tables<'p>(results: impl IntoIterator<Item = &'p Path>) -> Box<dyn Write> {
    match results.into_iter().any(is_stream) {
        true => Box::new(io::stderr().lock()),
        false => Box::new(io::stdout().lock()),
    }
}

fn is_stream(path: &Path) -> bool {
    is_stdout(path) || fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir())
}

/// Writes a file atomically.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let _writing = interrupt::writing();
    Ok(bcosc_onnx::write_bytes(path, bytes)?)
}

/// Writes a value as JSON.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// Checks before any work is done that all output files are distinct and can be written.
pub fn check_outputs<'p>(paths: impl IntoIterator<Item = &'p Path>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for path in paths {
        check_output(path)?;
        if !seen.insert(place(path)) {
            bail!("two outputs have the same path: {}", path.display());
        }
    }
    Ok(())
}

fn check_output(path: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(path);
    if metadata.as_ref().is_ok_and(fs::Metadata::is_dir) {
        bail!(
            "cannot write {}: it is a folder; give a file name",
            path.display()
        );
    }
    if is_stream(path) {
        return Ok(());
    }
    check_folder(folder_of(path), path)
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Checks that no output overwrites an input.
pub fn check_kept<'p>(
    read: impl IntoIterator<Item = &'p PathBuf>,
    results: impl IntoIterator<Item = &'p Path>,
) -> anyhow::Result<()> {
    let places: BTreeSet<PathBuf> = results.into_iter().map(place).collect();
    for path in read {
        if places.contains(&place(path)) {
            bail!("{} is an input and would be overwritten", path.display());
        }
    }
    Ok(())
}

/// The canonical form of a path; the file may not exist yet.
fn place(path: &Path) -> PathBuf {
    if is_stdout(path) {
        return STDOUT.into();
    }
    let in_folder = || {
        let folder = folder_of(path).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let found = path.canonicalize().ok().or_else(in_folder);
    found.unwrap_or_else(|| path.to_owned())
}

/// Checks that a model is not written to a terminal, and that additional files have a place next to it.
pub fn check_model_output(path: &Path, is_alone: bool) -> anyhow::Result<()> {
    if is_stdout(path) && io::stdout().is_terminal() {
        bail!(
            "refusing to write a model to a terminal; give a file name or redirect standard output"
        );
    }
    if !is_alone && is_stream(path) {
        bail!(
            "cannot write additional files next to {}; give a file name",
            path.display()
        );
    }
    Ok(())
}

/// Creates an output folder and its parents if they do not exist.
pub fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    check_folder(path, path)
}

/// Checks that a folder is writable; the error names the output file.
fn check_folder(folder: &Path, named: &Path) -> anyhow::Result<()> {
    tempfile::tempfile_in(folder).map_err(|source| Error::File {
        path: named.to_owned(),
        source,
    })?;
    Ok(())
}
