//! Class names.
//!
//! `labels/imagenet.txt` holds the 1,000 class names of ImageNet, in the usual order: torchvision's
//! `ResNet50_Weights.IMAGENET1K_V2.meta["categories"]` (torchvision 0.29, BSD 3-Clause).

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Stands for the built-in class names, instead of a file.
pub const IMAGENET: &str = "imagenet";
const IMAGENET_NAMES: &str = include_str!("labels/imagenet.txt");

/// The class names of a model, in the order of its logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    path: PathBuf,
    names: Vec<String>,
}

impl Labels {
    /// Reads a text file with one name per line; `imagenet` stands for its 1,000 class names. `classes` is the number
    /// of classes of the model.
    ///
    /// # Errors
    /// [`Error::Labels`] if the file cannot be read, or has a different number of names.
    pub fn read(path: &Path, classes: usize) -> Result<Self, Error> {
        let fail = |problem: String| Error::Labels {
            path: path.to_owned(),
            problem,
        };
        let text = match path.to_str() {
            Some(IMAGENET) => IMAGENET_NAMES.to_owned(),
            _ => fs::read_to_string(path).map_err(|e| fail(e.to_string()))?,
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
        let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        if names.len() != classes {
            return Err(fail(format!(
                "has {} names, but the model has {classes} classes",
                names.len()
            )));
        }
        Ok(Labels {
            path: path.to_owned(),
            names,
        })
    }

    /// The name of a class.
    pub fn name(&self, class: usize) -> Option<&str> {
        self.names.get(class).map(String::as_str)
    }

    /// The class of a name.
    ///
    /// # Errors
    /// [`Error::Labels`] if no class, or more than one, has this name.
    pub fn class(&self, name: &str) -> Result<usize, Error> {
        let fail = |problem: String| Error::Labels {
            path: self.path.clone(),
            problem,
        };
        let mut named = (0..self.names.len()).filter(|class| self.names[*class] == name);
        match (named.next(), named.next()) {
            (Some(class), None) => Ok(class),
            (Some(one), Some(other)) => Err(fail(format!(
                "classes {one} and {other} are both called `{name}`"
            ))),
            (None, _) => Err(fail(format!("no class is called `{name}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str, classes: usize) -> Result<Labels, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        fs::write(&path, text).unwrap();
        Labels::read(&path, classes)
    }

    #[test]
    fn a_line_is_a_class() {
        let labels = labels("\u{feff}cat\r\ngreat dane\r\n", 2).unwrap();
        assert_eq!(labels.name(1), Some("great dane"));
        assert_eq!(labels.class("cat").unwrap(), 0);
        assert_eq!(labels.name(2), None);
    }

    #[test]
    fn a_wrong_number_of_lines_is_told() {
        let error = labels("cat\ndog\n", 10).unwrap_err().to_string();
        assert!(error.contains("has 2 names"), "{error}");
    }

    #[test]
    fn those_of_imagenet_are_built_in() {
        let labels = Labels::read(Path::new(IMAGENET), 1000).unwrap();
        let names = [0, 207, 281, 999].map(|class| labels.name(class));
        let expected = ["tench", "golden retriever", "tabby", "toilet tissue"];
        assert_eq!(names, expected.map(Some));
        let error = Labels::read(Path::new(IMAGENET), 10)
            .unwrap_err()
            .to_string();
        assert!(error.contains("has 1000 names"), "{error}");
    }

    #[test]
    fn a_name_must_be_of_one_class() {
        let labels = labels("crane\ncrane\ndog", 3).unwrap();
        let error = labels.class("crane").unwrap_err().to_string();
        assert!(error.contains("classes 0 and 1"), "{error}");
        assert!(labels.class("cow").is_err());
    }
}
