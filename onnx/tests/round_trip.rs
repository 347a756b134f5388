//! What is written is what was read, to this crate and to an independent decoder.

mod common;

use std::fs;

use bcosc_onnx::proto::{GraphProto, ModelProto, TensorProto};
use bcosc_onnx::{WriteOptions, decode, encode, read, write};
use common::*;
use onnx_protobuf::Message as _;
use prost::Message as _;

#[test]
fn every_message_comes_back() {
    let model = full_model();
    let file = decode(encode(&model).unwrap()).unwrap();
    assert!(file.model == model);
    assert_eq!(file.unknown_fields, []);
}

#[test]
fn empty_values_keep_their_presence() {
    let tensor = TensorProto {
        data_type: Some(1),
        dims: vec![0],
        raw_data: Some(Default::default()),
        name: text(""),
        data_location: Some(0),
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: Some(0),
        domain: text(""),
        graph: Some(Box::new(GraphProto {
            name: text(""),
            initializer: vec![tensor],
            ..Default::default()
        })),
        ..Default::default()
    };
    let back = decode(encode(&model).unwrap()).unwrap().model;
    assert_eq!(back, model);
    let none = ModelProto {
        ir_version: None,
        domain: None,
        ..model
    };
    assert_ne!(back, none);
}

/// rust-protobuf reads our bytes, finds the same values, and what it writes we read as the same
/// model: it keeps the fields that its older schema lacks.
#[test]
fn an_independent_decoder_agrees() {
    let model = full_model();
    let theirs = onnx_protobuf::ModelProto::parse_from_bytes(&encode(&model).unwrap()).unwrap();
    assert_eq!(theirs.ir_version, 11);
    assert_eq!(theirs.producer_name, "tests");
    let graph = &theirs.graph;
    assert_eq!(graph.node[0].input, ["x", "", "described"]);
    assert_eq!(graph.node[0].attribute[0].ints, [1, -1]);
    assert_eq!(graph.node[0].attribute[0].graphs.len(), 2);
    let ours = model.graph.as_ref().unwrap();
    for (their, our) in graph.initializer.iter().zip(&ours.initializer) {
        assert_eq!(their.name, our.name());
        assert_eq!(their.dims, our.dims);
        assert_eq!(their.raw_data, our.raw_data());
        assert_eq!(their.float_data, our.float_data);
        assert_eq!(their.int64_data, our.int64_data);
        assert_eq!(their.uint64_data, our.uint64_data);
    }
    assert_eq!(theirs.functions[0].attribute, ["alpha"]);
    assert_eq!(theirs.training_info[0].update_binding[0].value, "u");

    let again = theirs.write_to_bytes().unwrap();
    assert!(decode(again.into()).unwrap().model == model);
}

#[test]
fn a_file_is_what_encode_makes_and_two_runs_agree() {
    let dir = tempfile::tempdir().unwrap();
    let model = full_model();
    let path = dir.path().join("m.onnx");
    let written = write(&model, &path, &WriteOptions::default()).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    assert_eq!(written.sidecar, None);
    assert_eq!(bytes, encode(&model).unwrap());
    assert_eq!(bytes, model.encode_to_vec());
    write(&model, &path, &WriteOptions::default()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);

    let file = read(&path).unwrap();
    assert!(file.model == model);
    assert_eq!(file.bytes, bytes.len() as u64);
    assert_eq!(file.path.as_deref(), Some(path.as_path()));
}

#[test]
fn decoding_copies_no_payload() {
    let bytes = encode(&model_of(vec![floats("a", 1000), floats("b", 3)])).unwrap();
    let whole = bytes.as_ptr_range();
    let file = decode(bytes.clone()).unwrap();
    for tensor in &file.model.graph.unwrap().initializer {
        let payload = tensor.payload().unwrap();
        let range = payload.as_ptr_range();
        assert!(whole.start <= range.start && range.end <= whole.end);
    }
}

#[test]
fn a_map_outlives_the_file_and_what_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let options = WriteOptions::default();
    let (old, new) = (floats("w", 100_000), floats("w", 10));
    write(&model_of(vec![old.clone()]), &path, &options).unwrap();
    let file = read(&path).unwrap();
    write(&model_of(vec![new.clone()]), &path, &options).unwrap();
    assert_eq!(file.model, model_of(vec![old]));
    // In place: from the map of the file that is replaced.
    let second = read(&path).unwrap();
    write(&second.model, &path, &options).unwrap();
    assert_eq!(read(&path).unwrap().model, model_of(vec![new]));
}

#[cfg(unix)]
#[test]
fn output_has_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (path, plain) = (dir.path().join("m.onnx"), dir.path().join("plain"));
    write(&full_model(), &path, &WriteOptions::default()).unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |p| fs::metadata(p).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
}

#[cfg(unix)]
#[test]
fn a_link_stays_and_a_device_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.onnx"), dir.path().join("link.onnx"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real.onnx", &link).unwrap();
    let model = full_model();
    write(&model, &link, &WriteOptions::default()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(&real).unwrap().model, model);

    write(&model, "/dev/null".as_ref(), &WriteOptions::default()).unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}
