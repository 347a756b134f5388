//! Which files of a folder are pictures.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Error;

/// Maximum depth of the search.
const DEEPEST: usize = 16;

/// File extensions of pictures.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// All pictures in a folder, recursively, sorted by path, without hidden files.
///
/// # Errors
/// [`Error::Images`] if a folder cannot be listed.
pub fn pictures(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    search(folder, 0, &mut seen, &mut found).map_err(|(path, error)| Error::Images {
        path,
        problem: format!("cannot list the folder: {error}"),
    })?;
    found.sort();
    Ok(found)
}

/// `seen` holds the canonical paths of folders, to stop at cyclic links.
fn search(
    folder: &Path,
    depth: usize,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    let fail = |error| (folder.to_owned(), error);
    if depth > DEEPEST || !seen.insert(folder.canonicalize().map_err(fail)?) {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            search(&path, depth + 1, seen, found)?;
        } else if is_picture(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

/// At most `limit` of the items, evenly spaced: of sorted class folders, every class gets its share.
pub fn spread<T: Clone>(items: &[T], limit: usize) -> Vec<T> {
    let count = items.len().min(limit);
    (0..count)
        .map(|i| items[i * items.len() / count].clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_takes_its_share_of_every_class() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(spread(&items, 4), [0, 25, 50, 75]);
        assert_eq!(spread(&items[..3], 64), [0, 1, 2]);
    }

    #[test]
    fn pictures_are_found_below_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b/1.PNG",
            "a/2.jpeg",
            "a/notes.txt",
            "0.webp",
            "b/._1.png",
            ".c/3.png",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        let found = pictures(folder.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|p| p.strip_prefix(folder.path()).unwrap())
            .collect();
        assert_eq!(names, ["0.webp", "a/2.jpeg", "b/1.PNG"].map(Path::new));
    }
}
