//! Machine code of kernels, kept on disk by architecture, version of the compiler and text.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bcosc_engine::{EngineError, Precision};
use crc::{CRC_64_XZ, Crc};

use super::compile::{Architecture, Compiler, options};
use super::found::folder;
use super::libraries::NAME;
use crate::kernels::PRELUDE;
use crate::plan::Source;

static CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);
/// Bytes before the code in a file.
const SEAL: usize = 16;

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
    // A file that is spoiled is written anew.
    if let Some(code) = fs::read(&file).ok().and_then(without_seal) {
        return load(code);
    }
    let code = compiled()?;
    // Without a file that can be written, the next process compiles it again.
    if let Err(error) = written(&file, &code) {
        tracing::debug!("{NAME}: {}: {error}", file.display());
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
    let mut digest = CRC.digest();
    options(precision)
        .iter()
        .for_each(|option| digest.update(option.as_bytes()));
    digest.update(PRELUDE.as_bytes());
    digest.update(kernel.text.as_bytes());
    let (major, minor) = compiler.version();
    let folder = format!("kernels-sm_{}-nvrtc-{major}.{minor}", architecture.0);
    Path::new(&folder).join(format!("{}-{:016x}", kernel.name, digest.finalize()))
}

/// What is before code in a file: its length and its sum. The driver reads code without knowing where it ends.
fn seal(code: &[u8]) -> [u8; SEAL] {
    let numbers = [code.len() as u64, CRC.checksum(code)];
    let mut seal = [0; SEAL];
    for (to, number) in seal.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    seal
}

/// The code of a file, if all of it is there.
fn without_seal(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let (found, code) = file.split_at_checked(SEAL)?;
    if found != seal(code) {
        return None;
    }
    file.drain(..SEAL);
    Some(file)
}

fn written(file: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Beside its final name, so that nobody reads half of it.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&seal(code))?;
    new.write_all(code)?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels").join("norm");
        written(&file, b"machine code").unwrap();
        let whole = fs::read(&file).unwrap();
        assert_eq!(without_seal(whole.clone()).unwrap(), b"machine code");
        for length in [0, 7, SEAL, whole.len() - 1] {
            assert_eq!(without_seal(whole[..length].to_vec()), None);
        }
        let longer = [whole.as_slice(), b"!"].concat();
        assert_eq!(without_seal(longer), None);
        let mut other = whole;
        other[SEAL] ^= 1;
        assert_eq!(without_seal(other), None);
    }
}
