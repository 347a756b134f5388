//! The pictures given on the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::bail;
use bcosc::pictures;

/// A picture.
pub struct Item {
    pub path: PathBuf,
    /// Name in tables and captions: the given path, or the path inside the given folder.
    pub shown: String,
    /// Start of the names of its output files.
    pub name: PathBuf,
}

/// All pictures, each once; folders are searched. A name is the file name, or the path inside the folder,
/// without the extension unless two names would then be equal. Files below `out` are results of earlier runs.
pub fn items(given: &[PathBuf], out: Option<&Path>) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |path: PathBuf, shown: &Path, name: &Path| {
        // The same file may be given by different paths.
        if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            items.push(Item {
                path,
                shown: shown.display().to_string(),
                name: name.to_owned(),
            });
        }
    };
    for path in given {
        if !path.is_dir() {
            let name = path.file_name().map_or(path.as_path(), Path::new);
            add(path.clone(), path, name);
            continue;
        }
        let mut found = pictures(path)?;
        if let Some(out) = out.and_then(|out| out.canonicalize().ok()) {
            found.retain(|picture| !picture.canonicalize().is_ok_and(|p| p.starts_with(&out)));
        }
        if found.is_empty() {
            bail!("no pictures (jpg, png or webp) found in {}", path.display());
        }
        for picture in found {
            let name = picture.strip_prefix(path).unwrap_or(&picture).to_owned();
            add(picture, &name, &name);
        }
    }
    let mut stems: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for item in &items {
        *stems.entry(item.name.with_extension("")).or_default() += 1;
    }
    for item in &mut items {
        let stem = item.name.with_extension("");
        if stems[&stem] == 1 {
            item.name = stem;
        }
    }
    Ok(items)
}

/// Checks that results are not written among the pictures, where the next run would explain them.
pub fn check_apart(out: &Path, given: &[PathBuf]) -> anyhow::Result<()> {
    let Ok(out) = out.canonicalize() else {
        return Ok(());
    };
    for folder in given.iter().filter(|path| path.is_dir()) {
        if folder.canonicalize().is_ok_and(|f| f.starts_with(&out)) {
            bail!(
                "the output folder is among the pictures in {}; give another -o",
                folder.display()
            );
        }
    }
    Ok(())
}

/// Checks that results do not overwrite each other.
pub fn check_names(items: &[Item]) -> anyhow::Result<()> {
    let mut taken: BTreeMap<&Path, &Path> = BTreeMap::new();
    for item in items {
        if let Some(other) = taken.insert(&item.name, &item.path) {
            bail!(
                "results for {} and {} would have the same name; explain them in separate runs with different -o",
                other.display(),
                item.path.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(files: &[&str], given: &[&str]) -> (Vec<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, []).unwrap();
        }
        let given: Vec<PathBuf> = given.iter().map(|g| folder.path().join(g)).collect();
        let items = items(&given, Some(&folder.path().join("out"))).unwrap();
        let names = items.iter().map(|i| i.name.display().to_string()).collect();
        (names, check_names(&items).is_ok())
    }

    #[test]
    fn folders_are_opened_and_names_are_short() {
        let (names, distinct) = named(
            &["d/a.jpg", "d/e/b.x.png", "c.jpg"],
            &["c.jpg", "d", "d/../d/a.jpg"],
        );
        assert_eq!(names, ["c", "a", "e/b.x"]);
        assert!(distinct);
    }

    #[test]
    fn extensions_tell_apart_and_equal_names_are_refused() {
        let (names, distinct) = named(&["a.jpg", "a.png"], &["."]);
        assert_eq!(names, ["a.jpg", "a.png"]);
        assert!(distinct);
        let (_, distinct) = named(&["d/a.jpg", "e/a.jpg"], &["d", "e"]);
        assert!(!distinct);
    }

    #[test]
    fn results_are_not_explained() {
        let (names, _) = named(&["a.jpg", "out/a.explanation.png"], &["."]);
        assert_eq!(names, ["a"]);
        let folder = tempfile::tempdir().unwrap();
        let (out, below) = (folder.path().to_owned(), folder.path().join("below"));
        std::fs::create_dir(&below).unwrap();
        assert!(check_apart(&out, std::slice::from_ref(&out)).is_err());
        assert!(check_apart(&out, std::slice::from_ref(&below)).is_err());
        assert!(check_apart(&below, &[out]).is_ok());
    }
}
