//! Names of classes.

use std::fs;
use std::path::Path;

use crate::Error;

/// The names in a text file, one a line, in the order of a model's classes. Blank lines at the end do not
/// count.
///
/// # Errors
/// [`Error::Labels`] where the file cannot be read or holds no names.
pub fn read_labels(path: &Path) -> Result<Vec<String>, Error> {
    let fail = |problem: String| Error::Labels {
        path: path.to_owned(),
        problem,
    };
    let text = fs::read_to_string(path).map_err(|e| fail(format!("cannot read the file: {e}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    match names.is_empty() {
        true => Err(fail("holds no names; write one a line".to_owned())),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_lines_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        fs::write(&path, "\u{feff}tench\r\n great white shark \n\n").unwrap();
        assert_eq!(read_labels(&path).unwrap(), ["tench", "great white shark"]);
        fs::write(&path, "\n").unwrap();
        let error = read_labels(&path).unwrap_err().to_string();
        assert!(error.contains("labels.txt: holds no names"), "{error}");
    }
}
