//! Machine code of kernels, kept on disk by architecture, version of the compiler and text.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bcosc_engine::{EngineError, Precision};
use crc::{CRC_64_XZ, Crc};

use super::compile::{Architecture, Compiler, options};
use super::found::folder;
use crate::kernels::PRELUDE;
use crate::plan::Source;

/// Loads the code of a kernel: what is on disk, or what the compiler makes of it now.
///
/// # Errors
/// If the kernel does not compile, or its code does not load.
pub fn loaded<T>(
    compiler: &Compiler,
    kernel: &Source,
    architecture: Architecture,
    precision: Precision,
    load: impl Fn(Vec<u8>) -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    let compiled = || compiler.compile(kernel, architecture, precision);
    let name = name(compiler, kernel, architecture, precision);
    let Some(file) = folder().map(|folder| folder.join(name)) else {
        return load(compiled()?);
    };
    // A file that does not load is spoiled, and is written anew.
    if let Ok(code) = fs::read(&file)
        && let Ok(loaded) = load(code)
    {
        return Ok(loaded);
    }
    let code = compiled()?;
    // Without a file that can be written, the next process compiles it again.
    if let Err(error) = written(&file, &code) {
        tracing::debug!("{}: {error}", file.display());
    }
    load(code)
}

/// Where the code of a kernel is.
fn name(
    compiler: &Compiler,
    kernel: &Source,
    architecture: Architecture,
    precision: Precision,
) -> PathBuf {
    let crc = Crc::<u64>::new(&CRC_64_XZ);
    let mut digest = crc.digest();
    options(precision)
        .iter()
        .for_each(|option| digest.update(option.as_bytes()));
    digest.update(PRELUDE.as_bytes());
    digest.update(kernel.text.as_bytes());
    let (major, minor) = compiler.version();
    let folder = format!("kernels-sm_{}-nvrtc-{major}.{minor}", architecture.0);
    Path::new(&folder).join(format!("{}-{:016x}", kernel.name, digest.finalize()))
}

fn written(file: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Beside its final name, so that nobody reads half of it.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(code)?;
    new.persist(file)?;
    Ok(())
}
