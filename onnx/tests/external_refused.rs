//! External data that is refused: places outside the folder, false sizes, contradictions.

mod common;

use std::fs;
use std::path::Path;

use bcosc_onnx::proto::ModelProto;
use bcosc_onnx::{
    DataType, ExternalData, ExternalProblem, ReadErrorKind, TensorProblem, WriteOptions, decode,
    encode, read, write,
};
use common::*;
use prost::Message as _;
use tempfile::TempDir;

/// Writes the bytes of a model as they are, whatever it refers to.
fn plant(model: &ModelProto, path: &Path) {
    fs::write(path, model.encode_to_vec()).unwrap();
}

/// Reads a model whose one tensor has these entries, in a folder with a file `w` of 8 bytes.
fn refused(dir: &TempDir, dims: &[i64], entries: &[(&str, &str)]) -> (ReadErrorKind, String) {
    let path = dir.path().join("m.onnx");
    fs::write(dir.path().join("w"), [0; 8]).unwrap();
    plant(
        &model_of(vec![external(
            "the weights",
            DataType::Float,
            dims,
            entries,
        )]),
        &path,
    );
    let error = read(&path).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("m.onnx") && message.contains("the weights"),
        "{message}"
    );
    assert!(message.contains("graph.initializer[0]"), "{message}");
    (*error.kind, message)
}

fn problem(dir: &TempDir, dims: &[i64], entries: &[(&str, &str)]) -> ExternalProblem {
    match refused(dir, dims, entries) {
        (ReadErrorKind::External { problem, .. }, _) => problem,
        (_, message) => panic!("{message}"),
    }
}

#[test]
fn places_outside_the_folder_are_refused() {
    use ExternalProblem as P;
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), [0; 8]).unwrap();
    let dir = tempfile::tempdir_in(&outer).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let secret = outer.path().join("secret");
    let absolute = secret.to_str().unwrap();
    for location in [
        "../secret",
        "sub/../../secret",
        "sub/../w",
        "..",
        absolute,
        "/",
    ] {
        let found = problem(&dir, &[2], &[("location", location)]);
        assert!(
            matches!(&found, P::BadLocation(l) if l == location),
            "{found}"
        );
    }
    let found = problem(&dir, &[2], &[("location", "sub")]);
    assert!(matches!(found, P::NotRegular(_)));
    for location in ["missing", "w/x", "nul\0byte"] {
        let found = problem(&dir, &[2], &[("location", location)]);
        assert!(matches!(found, P::Io { .. }), "{found}");
    }
    for entries in [&[][..], &[("location", "")], &[("offset", "0")]] {
        assert!(matches!(problem(&dir, &[2], entries), P::NoLocation));
    }
    let twice = [("location", "w"), ("location", "secret")];
    assert!(matches!(problem(&dir, &[2], &twice), P::Twice("location")));
}

#[cfg(unix)]
#[test]
fn links_may_lead_anywhere_inside_and_nowhere_else() {
    use std::os::unix::fs::symlink;
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), [0; 8]).unwrap();
    let dir = tempfile::tempdir_in(&outer).unwrap();
    symlink("../secret", dir.path().join("out")).unwrap();
    symlink("..", dir.path().join("folder")).unwrap();
    for location in ["out", "folder/secret"] {
        let found = problem(&dir, &[2], &[("location", location)]);
        assert!(matches!(found, ExternalProblem::Outside { .. }), "{found}");
    }
    symlink("/dev/zero", dir.path().join("zero")).unwrap();
    let found = problem(&dir, &[2], &[("location", "zero")]);
    assert!(matches!(found, ExternalProblem::Outside { .. }), "{found}");
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let found = problem(&dir, &[2], &[("location", "socket")]);
    assert!(matches!(found, ExternalProblem::NotRegular(_)), "{found}");
    drop(socket);

    // Inside, and through a folder that is itself reached by a link.
    symlink("w", dir.path().join("in")).unwrap();
    let path = dir.path().join("m.onnx");
    plant(
        &model_of(vec![external(
            "w",
            DataType::Float,
            &[2],
            &[("location", "in")],
        )]),
        &path,
    );
    read(&path).unwrap();
    let link = outer.path().join("link");
    symlink(dir.path(), &link).unwrap();
    read(&link.join("m.onnx")).unwrap();
}

#[test]
fn false_sizes_are_refused_before_anything_is_read() {
    use ExternalProblem as P;
    let dir = tempfile::tempdir().unwrap();
    let at = |offset, length| [("location", "w"), ("offset", offset), ("length", length)];
    for (offset, length) in [("4", "8"), ("9", "8"), ("18446744073709551615", "8")] {
        let found = problem(&dir, &[2], &at(offset, length));
        assert!(matches!(found, P::Short { size: 8, .. }), "{found}");
    }
    for length in ["4", "0", "9"] {
        let found = problem(&dir, &[2], &at("0", length));
        assert!(
            matches!(found, P::WrongLength { declared: 8, .. }),
            "{found}"
        );
    }
    for number in ["-1", "+1", " 1", "1.0", "0x1", "", "18446744073709551616"] {
        let found = problem(&dir, &[2], &at(number, "8"));
        assert!(
            matches!(found, P::BadNumber { key: "offset", .. }),
            "{found}"
        );
        let found = problem(&dir, &[2], &at("0", number));
        assert!(
            matches!(found, P::BadNumber { key: "length", .. }),
            "{found}"
        );
    }
    let found = problem(&dir, &[1 << 60], &[("location", "w")]);
    assert!(
        matches!(found, P::Short { end, .. } if end == 1 << 62),
        "{found}"
    );
    for dims in [
        &[1 << 62][..],
        &[1 << 40, 1 << 40],
        &[i64::MAX, i64::MAX, i64::MAX],
    ] {
        let (kind, message) = refused(&dir, dims, &[("location", "w")]);
        let ReadErrorKind::Tensor { error, .. } = kind else {
            panic!("{message}")
        };
        assert!(matches!(error.problem, TensorProblem::TooLarge(_)));
    }
    let (_, message) = refused(&dir, &[-8], &[("location", "w")]);
    assert!(message.contains("dimension 0 is -8"), "{message}");
}

#[test]
fn data_inside_and_outside_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    fs::write(dir.path().join("w"), [0; 8]).unwrap();
    let mut tensor = external("w", DataType::Float, &[2], &[("location", "w")]);
    tensor.float_data = vec![0.0; 2];
    plant(&model_of(vec![tensor.clone()]), &path);
    read(&path).unwrap_err();
    tensor.float_data.clear();
    tensor.raw_data = Some(vec![1; 8].into());
    plant(&model_of(vec![tensor]), &path);
    let error = read(&path).unwrap_err();
    assert!(error.to_string().contains("inline data"), "{error}");
}

#[test]
fn a_model_in_memory_has_no_folder() {
    let model = model_of(vec![external(
        "w",
        DataType::Float,
        &[2],
        &[("location", "w")],
    )]);
    let error = decode(model.encode_to_vec().into())
        .unwrap_err()
        .to_string();
    assert!(error.contains("open the model by its path"), "{error}");
    // Nor can data be written that was never read.
    let dir = tempfile::tempdir().unwrap();
    for external_data in [
        ExternalData::Auto,
        ExternalData::Always,
        ExternalData::Never,
    ] {
        let options = WriteOptions { external_data };
        let error = write(&model, &dir.path().join("m.onnx"), &options).unwrap_err();
        assert!(error.to_string().contains("was not read"), "{error}");
    }
    assert!(encode(&model).is_err());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}
