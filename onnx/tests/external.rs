//! External data: written beside the model, read back from there, and from nowhere else.

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use bcosc_onnx::proto::{ModelProto, TensorProto};
use bcosc_onnx::{DataType, ExternalData, WriteError, WriteOptions, Written, encode, read, write};
use bytes::Bytes;
use common::*;
use prost::Message as _;
use tempfile::TempDir;

fn save(model: &ModelProto, path: &Path, external_data: ExternalData) -> Written {
    write(model, path, &WriteOptions { external_data }).unwrap()
}

/// Writes the bytes of a model as they are, whatever it refers to.
fn plant(model: &ModelProto, path: &Path) {
    fs::write(path, model.encode_to_vec()).unwrap();
}

fn initializers(model: &ModelProto) -> &[TensorProto] {
    &model.graph.as_ref().unwrap().initializer
}

/// The folder's file names, sorted.
fn names(dir: &TempDir) -> Vec<String> {
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

fn value<'a>(tensor: &'a TensorProto, key: &str) -> &'a str {
    let mut entries = tensor.external_data.iter();
    entries.find(|e| e.key() == key).unwrap().value()
}

#[test]
fn large_tensors_lie_aligned_in_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let mut typed = floats("typed", 0);
    typed.raw_data = None;
    typed.dims = vec![300];
    typed.float_data = (0..300).map(|i| i as f32).collect();
    let model = model_of(vec![
        floats("a", 256),
        floats("small", 255),
        typed,
        floats("b", 5000),
    ]);
    let written = save(&model, &path, ExternalData::Always);
    assert_eq!(names(&dir), ["m.onnx", "m.onnx.data"]);
    assert_eq!(written.sidecar, Some(dir.path().join("m.onnx.data")));

    let on_disk = ModelProto::decode(Bytes::from(fs::read(&path).unwrap())).unwrap();
    for tensor in initializers(&on_disk) {
        assert_eq!(tensor.is_external(), tensor.name() != "small");
        assert_eq!(tensor.raw_data.is_none(), tensor.is_external());
        if tensor.is_external() {
            assert_eq!(value(tensor, "location"), "m.onnx.data");
            assert_eq!(value(tensor, "offset").parse::<u64>().unwrap() % 4096, 0);
            let length: u64 = value(tensor, "length").parse().unwrap();
            assert_eq!(length, tensor.byte_len().unwrap());
        }
    }

    let file = read(&path).unwrap();
    assert_eq!(file.bytes, written.bytes);
    for (back, tensor) in initializers(&file.model).iter().zip(initializers(&model)) {
        assert_eq!(back.payload().unwrap(), tensor.payload().unwrap());
        assert_eq!(back.is_external(), tensor.name() != "small");
    }
}

#[test]
fn the_mode_decides_and_auto_follows_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let model = model_of(vec![floats("w", 3000)]);
    assert_eq!(
        save(&model, &at("auto.onnx"), ExternalData::Auto).sidecar,
        None
    );
    save(&model, &at("out.onnx"), ExternalData::Always);
    let outside = read(&at("out.onnx")).unwrap().model;
    assert!(outside != model);

    assert_eq!(
        save(&outside, &at("never.onnx"), ExternalData::Never).sidecar,
        None
    );
    assert!(read(&at("never.onnx")).unwrap().model == model);
    assert_eq!(encode(&outside).unwrap(), encode(&model).unwrap());

    let again = save(&outside, &at("again.onnx"), ExternalData::Auto);
    assert_eq!(again.sidecar, Some(at("again.onnx.data")));
    let data = |name| fs::read(at(name)).unwrap();
    assert!(data("again.onnx.data") == data("out.onnx.data"));
    save(&outside, &at("out.onnx"), ExternalData::Auto);
    assert!(data("again.onnx.data") == data("out.onnx.data"));
    assert!(read(&at("out.onnx")).unwrap().model == outside);

    // Nothing is large enough to be outside.
    let small = model_of(vec![floats("w", 3)]);
    assert_eq!(
        save(&small, &at("small.onnx"), ExternalData::Always).sidecar,
        None
    );
    assert!(!at("small.onnx.data").exists());
}

#[test]
fn attributes_stay_unless_they_came_from_outside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let mut model = model_of(vec![floats("w", 1024)]);
    model.graph.as_mut().unwrap().node = vec![constant(floats("c", 2000))];
    save(&model, &path, ExternalData::Always);
    let attribute = |m: &ModelProto| {
        let graph = m.graph.as_ref().unwrap();
        graph.node[0].attribute[0].t.clone().unwrap()
    };
    assert!(!attribute(&read(&path).unwrap().model).is_external());

    let tensor = external(
        "c",
        DataType::Float,
        &[512],
        &[("location", "m.onnx.data"), ("offset", "1024")],
    );
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].attribute[0].t = Some(Box::new(tensor.clone()));
    graph.initializer.clear();
    plant(&model, &path);
    let back = read(&path).unwrap();
    let payload = attribute(&back.model).payload().unwrap();
    assert_eq!(
        payload,
        floats("w", 1024).payload().unwrap().slice(1024..3072)
    );
    let kept = TensorProto {
        raw_data: None,
        ..*attribute(&back.model)
    };
    assert_eq!(kept, tensor);
    save(&back.model, &path, ExternalData::Auto);
    assert!(attribute(&read(&path).unwrap().model).is_external());
    assert_eq!(
        fs::metadata(dir.path().join("m.onnx.data")).unwrap().len(),
        2048
    );
}

#[test]
fn shared_bytes_are_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let (a, mut b) = (floats("a", 2000), floats("b", 2000));
    b.raw_data.clone_from(&a.raw_data);
    save(&model_of(vec![a, b]), &path, ExternalData::Always);
    assert_eq!(
        fs::metadata(dir.path().join("m.onnx.data")).unwrap().len(),
        8000
    );
    let back = read(&path).unwrap().model;
    assert_eq!(
        initializers(&back)[0].raw_data,
        initializers(&back)[1].raw_data
    );
}

#[test]
fn other_forms_of_entries_are_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/w"), [1, 2, 3, 4, 5, 6]).unwrap();
    let path = dir.path().join("m.onnx");
    let expect = |entries: &[(&str, &str)], bytes: &[u8]| {
        let tensor = external("w", DataType::Uint8, &[2], entries);
        plant(&model_of(vec![tensor.clone()]), &path);
        let back = read(&path).unwrap().model;
        let raw_data = Some(Bytes::copy_from_slice(bytes));
        assert_eq!(initializers(&back), [TensorProto { raw_data, ..tensor }]);
    };
    expect(&[("location", "sub/w")], &[1, 2]);
    expect(
        &[("offset", "4"), ("location", "./sub/w"), ("length", "2")],
        &[5, 6],
    );
    expect(
        &[("location", "sub//w"), ("checksum", "?"), ("basepath", "")],
        &[1, 2],
    );
    // No elements: no bytes, and a file that is there.
    let none = external(
        "w",
        DataType::Uint8,
        &[0],
        &[("location", "sub/w"), ("offset", "6")],
    );
    plant(&model_of(vec![none]), &path);
    assert_eq!(
        initializers(&read(&path).unwrap().model)[0]
            .payload()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn data_of_another_model_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.onnx"), dir.path().join("b.onnx"));
    save(&model_of(vec![floats("w", 1000)]), &b, ExternalData::Always);
    fs::rename(&b, &a).unwrap();
    let options = WriteOptions {
        external_data: ExternalData::Always,
    };
    let error = write(&model_of(vec![floats("w", 2000)]), &b, &options).unwrap_err();
    assert!(matches!(error, WriteError::SidecarInUse { .. }), "{error}");
    assert_eq!(names(&dir), ["a.onnx", "b.onnx.data"]);
    read(&a).unwrap();
    // An unreferenced file may be overwritten.
    fs::remove_file(&a).unwrap();
    write(&model_of(vec![floats("w", 2000)]), &b, &options).unwrap();
}

/// Sparse files, so that nothing is written: 3 GB outside are read, and must not go inside.
#[test]
fn more_than_an_onnx_file_holds() {
    const SIZE: u64 = 3 << 30;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let mut data = File::create(dir.path().join("w")).unwrap();
    data.write_all(&[1, 2, 3]).unwrap();
    data.set_len(SIZE).unwrap();
    let tensor = external("w", DataType::Uint8, &[SIZE as i64], &[("location", "w")]);
    plant(&model_of(vec![tensor]), &path);
    let file = read(&path).unwrap();
    let payload = initializers(&file.model)[0].payload().unwrap();
    assert_eq!(payload.len() as u64, SIZE);
    assert_eq!(payload[..4], [1, 2, 3, 0]);

    let out = dir.path().join("out.onnx");
    let never = WriteOptions {
        external_data: ExternalData::Never,
    };
    for error in [
        write(&file.model, &out, &never).unwrap_err(),
        encode(&file.model).unwrap_err(),
    ] {
        assert!(matches!(error, WriteError::TooLarge { bytes } if bytes > SIZE));
    }
    assert_eq!(names(&dir), ["m.onnx", "w"]);
}
