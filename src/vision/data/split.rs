//! Training and validation pictures.

use std::path::{Path, PathBuf};

use super::folder::{class_folders, listed};
use super::{ImageFolder, Samples};
use crate::{Error, Labels};

/// Folder of training pictures.
const TRAIN: &str = "train";
/// Folders of validation pictures; the first that exists.
const VALIDATION: [&str; 3] = ["val", "valid", "validation"];

/// A further part that data sets have.
const TEST: &str = "test";

/// How a folder without a part for validation is divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SplitOptions {
    /// Share that is for validation, in (0, 1).
    pub validation: f64,
    /// Whether every class gives this share, as training with labels requires; otherwise it is one of all pictures together.
    pub each_class: bool,
    /// Seed for random numbers.
    pub seed: u64,
}

impl Default for SplitOptions {
    fn default() -> Self {
        SplitOptions {
            validation: 0.1,
            each_class: true,
            seed: 0,
        }
    }
}

/// Pictures for training and for validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// For training.
    pub train: Samples,
    /// For validation.
    pub val: Samples,
    /// Names of the class folders.
    pub folders: Vec<String>,
    /// Warnings.
    pub notes: Vec<String>,
}

impl Split {
    /// Lists `PATH/train/CLASS/*` and `PATH/val/CLASS/*`, where `val` may be called `valid` or `validation`; or
    /// `PATH/CLASS/*` divided at random, see [`Samples::divided`] and [`Samples::divided_together`]. The classes are those of `model`, see
    /// [`ImageFolder::classes`].
    ///
    /// # Errors
    /// [`Error::Images`] if a folder cannot be listed, has no pictures or only one class, if class folders differ between
    /// training and validation, or if they do not match the classes of the model; [`Error::Labels`] if a class is not in
    /// the labels; and [`Error::Options`] for a share out of range.
    pub fn open(
        path: &Path,
        options: &SplitOptions,
        model: &str,
        classes: usize,
        labels: Option<&Labels>,
    ) -> Result<Self, Error> {
        let SplitOptions {
            validation,
            each_class,
            seed,
        } = *options;
        if !(validation > 0.0 && validation < 1.0) {
            return Err(Error::Options(format!(
                "{validation} of the pictures cannot be for validation: give a share between 0 and 1"
            )));
        }
        let inside = class_folders(path)?;
        let find = |name: &str| inside.iter().find(|(found, _)| found == name);
        let train = find(TRAIN);
        let val = VALIDATION.iter().find_map(|name| find(name));
        if let (Some((_, train)), Some((_, val))) = (train, val) {
            let [train, val] = [ImageFolder::open(train)?, ImageFolder::open(val)?];
            same_classes(&train, &val)?;
            several_classes(&train)?;
            let (folders, notes) = (
                train.folders.clone(),
                [&train.notes[..], &val.notes].concat(),
            );
            return Ok(Split {
                train: Samples::labelled(train, model, classes, labels)?,
                val: Samples::labelled(val, model, classes, labels)?,
                folders,
                notes,
            });
        }
        incomplete(path, &inside, train.is_some())?;
        let all = ImageFolder::open(path)?;
        several_classes(&all)?;
        let (folders, notes) = (all.folders.clone(), all.notes.clone());
        let all = Samples::labelled(all, model, classes, labels)?;
        let (train, val) = match each_class {
            true => all.divided(validation, seed),
            false => all.divided_together(validation, seed),
        };
        if val.is_empty() {
            return Err(Error::Images {
                path: path.to_owned(),
                problem: "no class has two pictures, so none can be for validation".to_owned(),
            });
        }
        Ok(Split {
            train,
            val,
            folders,
            notes,
        })
    }
}

impl Split {
    /// Lists `PATH/train` and `PATH/val`, where `val` may be called `valid` or `validation`, or all pictures of `PATH`
    /// divided at random, for training and validation. Folders mean nothing.
    ///
    /// # Errors
    /// [`Error::Images`] if a folder cannot be listed, or there are fewer than two pictures.
    pub fn unlabelled(path: &Path, options: &SplitOptions) -> Result<[Samples; 2], Error> {
        let inside = class_folders(path)?;
        let find = |name: &str| inside.iter().find(|(found, _)| found == name);
        let val = VALIDATION.iter().find_map(|name| find(name));
        if let (Some((_, train)), Some((_, val))) = (find(TRAIN), val) {
            return Ok([Samples::unlabelled(train)?, Samples::unlabelled(val)?]);
        }
        let (train, val) = Samples::unlabelled(path)?.divided(options.validation, options.seed);
        if val.is_empty() {
            return Err(Error::Images {
                path: path.to_owned(),
                problem: "there is only one picture, so none can be held out".to_owned(),
            });
        }
        Ok([train, val])
    }
}

/// The numbers of classes are their places in the sorted folders, so these must be the same.
fn same_classes(train: &ImageFolder, val: &ImageFolder) -> Result<(), Error> {
    let missing = |of: &ImageFolder, other: &ImageFolder| {
        let names = of.folders.iter().map(String::as_str);
        let missing: Vec<&str> = names
            .filter(|name| !other.folders.iter().any(|found| found == name))
            .collect();
        let place = other.path.display();
        (!missing.is_empty()).then(|| format!("{place} has no {}", listed(&missing)))
    };
    let problems: Vec<String> = [missing(train, val), missing(val, train)]
        .into_iter()
        .flatten()
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Images {
        path: val.path.clone(),
        problem: format!(
            "the class folders are not those of {}: {}; add them (they may be empty), or remove the others",
            train.path.display(),
            problems.join(", and ")
        ),
    })
}

/// Folders that are all named after parts are not classes.
fn incomplete(path: &Path, inside: &[(String, PathBuf)], has_train: bool) -> Result<(), Error> {
    let is_part = |name: &str| [TRAIN, TEST].contains(&name) || VALIDATION.contains(&name);
    let [(first, _), ..] = inside else {
        return Ok(());
    };
    if !inside.iter().all(|(name, _)| is_part(name)) {
        return Ok(());
    }
    let (found, missing) = match has_train {
        true => (TRAIN, VALIDATION[0]),
        false => (first.as_str(), TRAIN),
    };
    Err(Error::Images {
        path: path.to_owned(),
        problem: format!(
            "there is a folder {found} but no folder {missing}; add it, or give {} to divide its pictures",
            path.join(found).display()
        ),
    })
}

fn several_classes(folder: &ImageFolder) -> Result<(), Error> {
    let [only] = &folder.folders[..] else {
        return Ok(());
    };
    Err(Error::Images {
        path: folder.path.clone(),
        problem: format!(
            "there is only one class folder, {only}, but training requires two classes"
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Pictures are not decoded here.
    fn split(files: &[&str], classes: usize) -> Result<Split, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        let split = Split::open(
            folder.path(),
            &SplitOptions::default(),
            "net",
            classes,
            None,
        );
        split.map_err(|e| e.to_string())
    }

    #[test]
    fn folders_of_both_parts_are_found() {
        let files = [
            "train/cat/1.jpg",
            "train/dog/1.jpg",
            "train/dog/2.jpg",
            "val/cat/1.jpg",
            "val/dog/9.jpg",
        ];
        let found = split(&files, 2).unwrap();
        assert_eq!(found.train.labels, Some(vec![0, 1, 1]));
        assert!(found.val.pictures[1].ends_with("val/dog/9.jpg"));
        let renamed = files.map(|file| file.replace("val/", "validation/"));
        let renamed: Vec<&str> = renamed.iter().map(String::as_str).collect();
        assert_eq!(split(&renamed, 2).unwrap().val.labels, Some(vec![0, 1]));
    }

    #[test]
    fn a_single_folder_is_divided() {
        let names: Vec<String> = (0..40)
            .map(|i| format!("{}/{i}.png", ["cat", "dog"][i % 2]))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = split(&names, 2).unwrap();
        assert_eq!((found.train.len(), found.val.len()), (36, 4));
        assert_eq!(found.val.labels, Some(vec![0, 0, 1, 1]));
    }

    #[test]
    fn classes_of_one_picture_are_divided_together() {
        let folder = tempfile::tempdir().unwrap();
        for class in 0..20 {
            let path = folder.path().join(format!("{class:02}/1.jpg"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        let options = SplitOptions {
            each_class: false,
            ..SplitOptions::default()
        };
        let found = Split::open(folder.path(), &options, "net", 20, None).unwrap();
        assert_eq!((found.train.len(), found.val.len()), (18, 2));
        let class = found.val.labels.unwrap()[0];
        assert!(found.val.pictures[0].ends_with(format!("{class:02}/1.jpg")));
    }

    #[test]
    fn train_may_be_a_class() {
        let found = split(
            &["boat/1.jpg", "boat/2.jpg", "train/1.jpg", "train/2.jpg"],
            2,
        )
        .unwrap();
        assert_eq!(found.folders, ["boat", "train"]);
    }

    #[test]
    fn different_classes_are_named() {
        let error = split(
            &[
                "train/cat/1.jpg",
                "train/dog/1.jpg",
                "val/cat/1.jpg",
                "val/cow/1.jpg",
            ],
            2,
        )
        .unwrap_err();
        assert!(
            error.contains("val has no folder dog, and")
                && error.contains("train has no folder cow"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_trained_on_is_refused() {
        for (files, classes, expected) in [
            (
                &["train/cat/1.jpg"][..],
                2,
                "there is a folder train but no folder val",
            ),
            (
                &["test/a/1.jpg", "val/a/1.jpg"],
                2,
                "there is a folder test but no folder train",
            ),
            (&["cat/1.jpg", "cat/2.jpg"], 2, "only one class folder, cat"),
            (
                &["train/a/1.jpg", "val/a/1.jpg"],
                2,
                "only one class folder, a",
            ),
            (&["a/1.jpg", "b/1.jpg"], 2, "no class has two pictures"),
            (
                &["a/1.jpg", "b/1.jpg", "c/1.jpg"],
                2,
                "net has only 2 classes",
            ),
            (&["a/1.jpg", "b/1.jpg"], 3, "--labels"),
            (&["1.jpg"], 2, "one folder per class"),
        ] {
            let error = split(files, classes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let options = SplitOptions {
            validation: 1.0,
            ..SplitOptions::default()
        };
        let error = Split::open(Path::new("."), &options, "net", 2, None).unwrap_err();
        assert!(matches!(error, Error::Options(_)));
    }
}
