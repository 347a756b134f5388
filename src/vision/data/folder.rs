//! A folder of pictures with one folder per class.

use std::fs;
use std::path::{Path, PathBuf};

use crate::vision::images::{self, pictures};
use crate::{Error, Labels};

/// Number of class folders that a message names; further ones are counted.
const NAMED: usize = 5;

/// A folder with one folder per class, sorted by name like torchvision's `ImageFolder`. Pictures are found at any
/// depth; hidden folders and files are left out.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    /// The folder.
    pub path: PathBuf,
    /// Names of the class folders.
    pub folders: Vec<String>,
    /// All pictures, sorted by folder and name.
    pub items: Vec<Item>,
    /// Warnings.
    pub notes: Vec<String>,
}

/// A picture of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The file.
    pub path: PathBuf,
    /// Index of its class folder.
    pub folder: usize,
}

impl ImageFolder {
    /// Lists the pictures of a folder. They are not opened.
    ///
    /// # Errors
    /// [`Error::Images`] if a folder cannot be listed, or there are no pictures in class folders.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folders = class_folders(path)?;
        let mut items = Vec::new();
        let mut empty = Vec::new();
        for (folder, (name, path)) in folders.iter().enumerate() {
            let found = pictures(path)?;
            if found.is_empty() {
                empty.push(name.as_str());
            }
            items.extend(found.into_iter().map(|path| Item { path, folder }));
        }
        if items.is_empty() {
            return Err(Error::Images {
                path: path.to_owned(),
                problem:
                    "no pictures found; expected one folder per class with jpg, png or webp files"
                        .to_owned(),
            });
        }
        let notes = match empty.is_empty() {
            true => Vec::new(),
            false => vec![format!("there are no pictures in {}", listed(&empty))],
        };
        Ok(ImageFolder {
            path: path.to_owned(),
            folders: folders.into_iter().map(|(name, _)| name).collect(),
            items,
            notes,
        })
    }

    /// At most `limit` of its pictures, spread evenly.
    pub fn limited(mut self, limit: usize) -> Self {
        self.items = images::spread(&self.items, limit);
        self
    }

    /// The class of each folder: by name in `labels`, or by position if there are as many folders as
    /// classes. `model` is the model's name in messages.
    ///
    /// # Errors
    /// [`Error::Images`] if there are more folders than classes, or fewer without labels, and [`Error::Labels`] if
    /// a folder is not in the labels.
    pub fn classes(
        &self,
        model: &str,
        classes: usize,
        labels: Option<&Labels>,
    ) -> Result<Vec<usize>, Error> {
        let count = self.folders.len();
        let fail = |problem: String| Error::Images {
            path: self.path.clone(),
            problem,
        };
        if count > classes {
            return Err(fail(format!(
                "there are {count} class folders, but {model} has only {classes} classes; use a model with a head of \
                 {count} outputs, or remove folders"
            )));
        }
        match labels {
            Some(labels) => self.folders.iter().map(|name| labels.class(name)).collect(),
            None if count == classes => Ok((0..classes).collect()),
            None => Err(fail(format!(
                "there are {count} class folders, and {model} has {classes} classes; say which is which with \
                 --labels FILE: the names of all classes, one a line, in the order of the model's logits"
            ))),
        }
    }
}

/// Names and paths of the folders in a folder, sorted, without hidden ones.
///
/// # Errors
/// [`Error::Images`] if it cannot be listed.
pub(super) fn class_folders(path: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let cannot = |e| Error::Images {
        path: path.to_owned(),
        problem: format!("cannot list the folder: {e}"),
    };
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            folders.push((name, entry.path()));
        }
    }
    folders.sort();
    Ok(folders)
}

/// The folders of these names, in words.
pub(super) fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match names.len() {
        1 => format!("folder {shown}"),
        _ => format!("folders {shown}{more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures are not decoded here.
    fn dataset(files: &[&str]) -> (tempfile::TempDir, ImageFolder) {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        let found = ImageFolder::open(folder.path()).unwrap();
        (folder, found)
    }

    #[test]
    fn folders_are_classes_in_sorted_order() {
        let (folder, found) = dataset(&[
            "dog/1.jpg",
            "cat/b.jpg",
            "cat/a.jpg",
            ".git/x.png",
            "top.jpg",
        ]);
        assert_eq!(found.folders, ["cat", "dog"]);
        let items: Vec<_> = found
            .items
            .iter()
            .map(|i| (i.path.strip_prefix(folder.path()).unwrap(), i.folder))
            .collect();
        let expected = [("cat/a.jpg", 0), ("cat/b.jpg", 0), ("dog/1.jpg", 1)];
        assert_eq!(
            items,
            expected.map(|(path, class)| (Path::new(path), class))
        );
        assert_eq!(found.classes("net", 2, None).unwrap(), [0, 1]);
        assert!(found.notes.is_empty());
    }

    #[test]
    fn fewer_folders_than_classes_need_labels() {
        let (folder, found) = dataset(&["dog/1.jpg", "cat/1.jpg"]);
        let error = found.classes("net", 3, None).unwrap_err().to_string();
        assert!(error.contains("2 class folders, and net has 3"), "{error}");
        let error = found.classes("net", 1, None).unwrap_err().to_string();
        assert!(error.contains("net has only 1"), "{error}");
        let path = folder.path().join("labels.txt");
        fs::write(&path, "dog\nbird\ncat\n").unwrap();
        let labels = Labels::read(&path, 3).unwrap();
        assert_eq!(found.classes("net", 3, Some(&labels)).unwrap(), [2, 0]);
        fs::write(&path, "dog\nbird\nCat\n").unwrap();
        let labels = Labels::read(&path, 3).unwrap();
        let error = found.classes("net", 3, Some(&labels)).unwrap_err();
        assert!(error.to_string().contains("`cat`"), "{error}");
    }

    #[test]
    fn an_empty_class_is_noted_and_an_empty_folder_refused() {
        let (folder, found) = dataset(&["cat/1.jpg", "dog/readme.txt"]);
        assert_eq!(found.notes, ["there are no pictures in folder dog"]);
        assert_eq!(found.classes("net", 2, None).unwrap(), [0, 1]);
        let error = ImageFolder::open(&folder.path().join("dog")).unwrap_err();
        assert!(
            error.to_string().contains("one folder per class"),
            "{error}"
        );
    }

    #[test]
    fn a_limit_takes_of_every_class() {
        let (folder, _) = dataset(&["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]);
        let found = ImageFolder::open(folder.path()).unwrap().limited(2);
        let folders: Vec<usize> = found.items.iter().map(|i| i.folder).collect();
        assert_eq!(folders, [0, 1]);
    }
}
