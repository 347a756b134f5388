//! Arrays in NumPy's format.

use std::fs;
use std::path::Path;

use crate::Result;

/// An array in NumPy's format.
pub struct Npy {
    /// Sizes.
    pub dims: Vec<u64>,
    data: Vec<u8>,
}

impl Npy {
    /// Reads an array of one type.
    pub fn read(path: &Path, dtype: &str) -> Result<Self> {
        let fail = |what: &str| format!("{}: {what}", path.display());
        let bytes = fs::read(path).map_err(|error| fail(&error.to_string()))?;
        let start = match bytes.get(..8) {
            Some(b"\x93NUMPY\x01\x00") => 10,
            Some(b"\x93NUMPY\x02\x00") => 12,
            _ => return Err(fail("is no .npy file").into()),
        };
        let length = bytes
            .get(8..start)
            .ok_or_else(|| fail("ends in its header"))?;
        let length = length.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
        let header = bytes
            .get(start..start + length)
            .ok_or_else(|| fail("ends in its header"))?;
        let header = String::from_utf8_lossy(header);
        if !header.contains(&format!("'{dtype}'")) || header.contains("'fortran_order': True") {
            return Err(fail(&format!("is not of type {dtype}, or not row by row")).into());
        }
        let shape = header
            .split_once("'shape': (")
            .and_then(|(_, rest)| rest.split_once(')'));
        let sizes = shape
            .map_or("", |(sizes, _)| sizes)
            .split(',')
            .map(str::trim);
        let dims = sizes.filter(|size| !size.is_empty()).map(str::parse);
        let dims = dims.collect::<std::result::Result<Vec<u64>, _>>()?;
        let data = bytes[start + length..].to_vec();
        let size = if dtype.ends_with('8') { 8 } else { 4 };
        if data.len() as u64 != size * dims.iter().product::<u64>() {
            return Err(fail("is not as long as its shape says").into());
        }
        Ok(Npy { dims, data })
    }

    /// Rows from `first` on; the first follows the last.
    pub fn rows(&self, first: u64, count: u64) -> Vec<u8> {
        let (all, size) = (self.dims[0], self.data.len() / self.dims[0] as usize);
        let rows = (0..count).map(|n| ((first + n) % all) as usize);
        rows.flat_map(|row| &self.data[row * size..(row + 1) * size])
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_and_their_rows_go_round() {
        let path = std::env::temp_dir().join(format!("bcosc-{}.npy", std::process::id()));
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend((0..6u8).flat_map(|n| f32::from(n).to_le_bytes()));
        fs::write(&path, &bytes).unwrap();
        let found = Npy::read(&path, "<f4").unwrap();
        assert_eq!(found.dims, [3, 2]);
        let rows = found.rows(2, 2);
        let wanted: Vec<u8> = [4f32, 5.0, 0.0, 1.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(rows, wanted);
        assert!(Npy::read(&path, "<i8").is_err());
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(Npy::read(&path, "<f4").is_err());
        fs::remove_file(&path).unwrap();
    }
}
