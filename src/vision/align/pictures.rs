//! The images of an alignment: for training, and held out for the comparison with the original.

use std::path::PathBuf;

use super::options::{AlignOptions, TrainOn};
use crate::data::{ImageFolder, Samples, Split, SplitOptions};
use crate::vision::images::spread;
use crate::vision::predict::Predictor;
use crate::{Error, Labels};

/// Images of both kinds.
#[derive(Clone, Debug)]
pub(super) struct Pictures {
    /// For training.
    pub train: Samples,
    /// For the comparison with the original.
    pub held_out: Vec<PathBuf>,
    /// The same with the classes of the model, if they have any; folder i is class i.
    pub labelled: Option<ImageFolder>,
    /// Names of the class folders, where images have classes.
    pub folders: Vec<String>,
    /// Warnings.
    pub notes: Vec<String>,
}

impl Pictures {
    /// The name of a class, where its folder says it.
    pub fn class_name(&self, class: usize, classes: usize) -> String {
        let name = self
            .folders
            .get(class)
            .filter(|_| self.folders.len() == classes);
        name.cloned().unwrap_or_else(|| class.to_string())
    }

    /// Lists `DIR/train` and `DIR/val`, or all images in `DIR`, which are divided. Class folders are used if they match the
    /// classes of the model.
    pub fn list(options: &AlignOptions, original: &Predictor) -> Result<Self, Error> {
        let labels = options.labels.as_ref();
        let labels = labels.map(|path| Labels::read(path, original.classes));
        let labels = labels.transpose()?;
        let needs_labels = options.then_train > 0 && options.train_on == TrainOn::Labels;
        let split = Split::open(
            &options.data,
            &SplitOptions {
                each_class: needs_labels,
                ..options.split
            },
            &original.label,
            original.classes,
            labels.as_ref(),
        );
        let mut found = match split {
            Ok(split) => {
                let labelled = split.val.clone().into_folder(original.classes);
                Pictures {
                    held_out: split.val.pictures,
                    labelled: Some(labelled),
                    train: match needs_labels {
                        true => split.train,
                        false => split.train.without_labels(),
                    },
                    folders: split.folders,
                    notes: split.notes,
                }
            }
            Err(error) if labels.is_some() || needs_labels => {
                return Err(error);
            }
            Err(_) => {
                let [train, held_out] = Split::unlabelled(&options.data, &options.split)?;
                Pictures {
                    train,
                    held_out: held_out.pictures,
                    labelled: None,
                    folders: Vec::new(),
                    notes: Vec::new(),
                }
            }
        };
        if let Some(limit) = options.images {
            found.train.pictures = spread(&found.train.pictures, limit);
            let labels = &mut found.train.labels;
            *labels = labels.take().map(|labels| spread(&labels, limit));
        }
        if let Some(limit) = options.val_images {
            found.held_out = spread(&found.held_out, limit);
            found.labelled = found.labelled.map(|folder| folder.limited(limit));
        }
        Ok(found)
    }
}
