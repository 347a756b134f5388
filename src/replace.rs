//! Replacing files of a training run.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a file beside its final name and renames it. The name beside it is always the same, so that what a killed run left
/// there is written over. The bytes are on the disk before the name is: after a power cut too, the name leads to a whole file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&partial, path));
    if renamed.is_err() {
        // The error of the write says more than one of the removal.
        let _ = fs::remove_file(&partial);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.txt");
        replace(&path, b"first").unwrap();
        // What a killed run left.
        let partial = folder.path().join("kept.partial");
        fs::write(&partial, b"sec").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(!partial.exists());
        fs::create_dir(&partial).unwrap();
        replace(&path, b"third").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }
}
