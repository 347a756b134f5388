//! Tensors that are kept between steps: in memory, or beyond a limit in a mapped file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use bcosc_ir::{DataType, Tensor};

use crate::Error;

/// Where tensors are kept.
#[derive(Debug)]
pub(super) struct Store {
    /// The most bytes in memory.
    limit: u64,
    /// Bytes in memory.
    held: u64,
    /// The folder of files.
    folder: PathBuf,
}

/// Tensors that were put away together.
#[derive(Debug)]
pub(super) struct Kept {
    pub tensors: Vec<Tensor>,
    /// Bytes in memory.
    held: u64,
}

/// Where tensors are being put.
#[derive(Debug)]
pub(super) enum Shelf {
    Memory(Kept),
    /// A file, with type, shape, start and end of each tensor. The file has no name, so it goes away with the process.
    File {
        file: BufWriter<File>,
        places: Vec<(DataType, Vec<u64>, [usize; 2])>,
        length: usize,
    },
}

impl Store {
    pub fn new(limit: u64, folder: PathBuf) -> Self {
        Store {
            limit,
            held: 0,
            folder,
        }
    }

    /// A place for tensors of so many bytes together.
    pub fn shelf(&mut self, bytes: u64) -> Result<Shelf, Error> {
        if self.held + bytes <= self.limit {
            self.held += bytes;
            return Ok(Shelf::Memory(Kept {
                tensors: Vec::new(),
                held: bytes,
            }));
        }
        let file = tempfile::tempfile_in(&self.folder).map_err(|e| self.failed(e))?;
        Ok(Shelf::File {
            file: BufWriter::new(file),
            places: Vec::new(),
            length: 0,
        })
    }

    /// Puts a tensor on a shelf.
    pub fn put(&mut self, shelf: &mut Shelf, tensor: Tensor) -> Result<(), Error> {
        match shelf {
            Shelf::Memory(kept) => kept.tensors.push(tensor),
            Shelf::File {
                file,
                places,
                length,
            } => {
                let bytes = tensor.bytes().map_err(|e| Error::encode("features", e))?;
                file.write_all(&bytes).map_err(|e| self.failed(e))?;
                let end = *length + bytes.len();
                places.push((tensor.dtype(), tensor.dims(), [*length, end]));
                *length = end;
            }
        }
        Ok(())
    }

    /// What was put on a shelf, in this order.
    pub fn finish(&self, shelf: Shelf) -> Result<Kept, Error> {
        match shelf {
            Shelf::Memory(kept) => Ok(kept),
            Shelf::File { file, places, .. } => {
                let file = file.into_inner();
                let file = file.map_err(|e| self.failed(e.into_error()))?;
                let bytes = bcosc_onnx::map(&file).map_err(|e| self.failed(e))?;
                let tensors = places.into_iter().map(|(dtype, dims, [start, end])| {
                    Tensor::from_bytes(dtype, &dims, bytes.slice(start..end))
                });
                Ok(Kept {
                    tensors: tensors.collect(),
                    held: 0,
                })
            }
        }
    }

    /// Drops tensors.
    pub fn free(&mut self, kept: Kept) {
        self.held -= kept.held;
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::File {
            path: self.folder.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(store: &mut Store, bytes: u64) -> Kept {
        let mut shelf = store.shelf(bytes).unwrap();
        for start in [0.0, 10.0] {
            let elements = (0..6).map(|x| start + x as f32).collect();
            let tensor = Tensor::f32s(&[2, 3], elements);
            store.put(&mut shelf, tensor).unwrap();
        }
        store.finish(shelf).unwrap()
    }

    #[test]
    fn what_memory_does_not_hold_is_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::new(48, folder.path().to_owned());
        let [first, second] = [(); 2].map(|()| kept(&mut store, 48));
        assert_eq!([first.held, second.held], [48, 0]);
        for (a, b) in first.tensors.iter().zip(&second.tensors) {
            assert_eq!(a.dims(), b.dims());
            assert_eq!(a.bytes().unwrap(), b.bytes().unwrap());
        }
        // The file has no name.
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        store.free(first);
        assert_eq!(kept(&mut store, 48).held, 48);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let mut store = Store::new(0, "/nowhere/at/all".into());
        let refused = store.shelf(1).unwrap_err().to_string();
        assert!(
            refused.starts_with("cannot write /nowhere/at/all: "),
            "{refused}"
        );
    }
}
