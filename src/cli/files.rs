//! Files that results are written to.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use bcosc::Error;
use bcosc_onnx::{STDOUT, is_stdout};

use super::interrupt;

/// Where tables go: a result in a pipe or on standard output must not be followed by one.
pub fn for_tables<'p>(results: impl IntoIterator<Item = &'p Path>) -> Box<dyn Write> {
    match results.into_iter().any(is_stream) {
        true => Box::new(io::stderr().lock()),
        false => Box::new(io::stdout().lock()),
    }
}

fn is_stream(path: &Path) -> bool {
    is_stdout(path) || fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir())
}

/// Writes a file; it gets its name when it is whole.
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

/// Finds out before the work is done whether each of its results has a place of its own.
pub fn check_outputs<'p>(paths: impl IntoIterator<Item = &'p Path>) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for path in paths {
        check_output(path)?;
        if !seen.insert(place(path)) {
            bail!("two results cannot both go to {}", path.display());
        }
    }
    Ok(())
}

fn check_output(path: &Path) -> anyhow::Result<()> {
    let metadata = fs::metadata(path);
    if metadata.as_ref().is_ok_and(fs::Metadata::is_dir) {
        bail!(
            "cannot write {}: it is a folder; name a file",
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

/// Whether what is read outlives the results.
pub fn check_kept<'p>(
    read: impl IntoIterator<Item = &'p PathBuf>,
    results: impl IntoIterator<Item = &'p Path>,
) -> anyhow::Result<()> {
    let places: BTreeSet<PathBuf> = results.into_iter().map(place).collect();
    for path in read {
        if places.contains(&place(path)) {
            bail!("{} is read, and would be overwritten", path.display());
        }
    }
    Ok(())
}

/// Where a path leads, by its one name.
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

/// A model is no text for a terminal, and nothing lies beside what is no file.
pub fn check_model_output(path: &Path, is_alone: bool) -> anyhow::Result<()> {
    if is_stdout(path) && io::stdout().is_terminal() {
        bail!("standard output is a terminal, and a model is no text; name a file");
    }
    if !is_alone && is_stream(path) {
        bail!(
            "nothing can be written beside {}; name a file",
            path.display()
        );
    }
    Ok(())
}

/// Makes a folder for results, and those above it, unless it is there.
pub fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    check_folder(path, path)
}

/// Whether files can be made in a folder; the error names what they are made for.
fn check_folder(folder: &Path, named: &Path) -> anyhow::Result<()> {
    tempfile::tempfile_in(folder).map_err(|source| Error::File {
        path: named.to_owned(),
        source,
    })?;
    Ok(())
}
