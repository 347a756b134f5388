//! Algorithms that were found before, on disk: by device, version of cuDNN, precision and shape.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::convolution::Algorithm;
use super::libraries::NAME;

/// The name of the file.
const FILE: &str = "convolutions.json";

/// Algorithms by what they are for.
#[derive(Debug)]
pub struct Known {
    file: Option<PathBuf>,
    found: BTreeMap<String, Algorithm>,
    new: BTreeMap<String, Algorithm>,
}

impl Known {
    /// Reads what is known. A file that cannot be read counts as empty.
    pub fn read() -> Self {
        Known::at(folder().map(|folder| folder.join(FILE)))
    }

    fn at(file: Option<PathBuf>) -> Self {
        let text = file.as_deref().and_then(|file| fs::read(file).ok());
        let found = text.and_then(|text| serde_json::from_slice(&text).ok());
        Known {
            file,
            found: found.unwrap_or_default(),
            new: BTreeMap::new(),
        }
    }

    /// The algorithm for a key.
    pub fn get(&self, key: &str) -> Option<Algorithm> {
        self.new.get(key).or(self.found.get(key)).copied()
    }

    /// Remembers an algorithm.
    pub fn insert(&mut self, key: String, algorithm: Algorithm) {
        self.new.insert(key, algorithm);
    }

    /// Writes what is new; what is there stays, since what does not fit into memory this time may be the fastest where it does.
    /// Without a file that can be written, the next process searches again.
    pub fn write(self) {
        let Some(file) = self.file.as_deref().filter(|_| !self.new.is_empty()) else {
            return;
        };
        // Others may have written in the meantime.
        let mut all = Known::at(Some(file.to_owned())).found;
        for (key, algorithm) in self.new {
            all.entry(key).or_insert(algorithm);
        }
        if let Err(error) = written(file, &all) {
            tracing::debug!("{NAME}: {}: {error}", file.display());
        }
    }
}

/// Where programs keep what they can find again.
pub fn folder() -> Option<PathBuf> {
    let variable = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("LOCALAPPDATA"));
    let cache = cache.or_else(|| Some(variable("HOME")?.join(".cache")));
    Some(cache?.join("bcosc"))
}

fn written(file: &Path, all: &BTreeMap<String, Algorithm>) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Beside its final name, so that nobody reads half of it.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(&serde_json::to_vec_pretty(all)?)?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::convolution::Math;
    use super::*;

    #[test]
    fn what_was_found_is_there_the_next_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache").join(FILE);
        let algorithm = |number| Algorithm {
            number,
            math: Math::Fma,
            space: 7,
        };
        for (key, number) in [("a", 1), ("b", 2)] {
            let mut known = Known::at(Some(file.clone()));
            known.insert(key.to_owned(), algorithm(number));
            known.write();
        }
        let known = Known::at(Some(file.clone()));
        assert_eq!(known.get("a"), Some(algorithm(1)));
        assert_eq!(known.get("b"), Some(algorithm(2)));
        let mut known = known;
        known.insert("a".to_owned(), algorithm(3));
        assert_eq!(known.get("a"), Some(algorithm(3)));
        known.write();
        assert_eq!(Known::at(Some(file.clone())).get("a"), Some(algorithm(1)));
        // Files of other versions have no math types.
        for other in [
            "{",
            r#"{"a": {"number": 1, "tensor_cores": true, "space": 7}}"#,
        ] {
            fs::write(&file, other).unwrap();
            assert_eq!(Known::at(Some(file.clone())).get("a"), None);
        }
    }
}
