//! Data sets: folders of pictures.

mod folder;

pub(crate) use folder::{ImageFolder, Item};
