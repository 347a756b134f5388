//! Files that are not models, damaged models, and places that cannot be written.

mod common;

use std::fs;

use bcosc_onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto};
use bcosc_onnx::{
    MalformedProblem, ReadErrorKind, WriteError, WriteOptions, decode, encode, read, write,
};
use common::*;
use prost::Message as _;

fn refused(bytes: &[u8]) -> String {
    decode(bytes.to_vec().into()).unwrap_err().to_string()
}

#[test]
fn other_files_are_recognised() {
    let mut safetensors = 100u64.to_le_bytes().to_vec();
    safetensors.extend(br#"{"w":{"dtype":"F32"}}"#);
    let cases: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"PK\x03\x04\x14\0\0\0", "ZIP"),
        (b"\x80\x02}q\0.", "pickle"),
        (&safetensors, "safetensors"),
        (b"<!DOCTYPE html>\n<html>", "HTML"),
        (b"\n<html lang=en>", "HTML"),
        (b"{\"error\": 1}", "JSON"),
        (b"<?xml version=\"1.0\"?>", "XML"),
        (b"Just some words, na\xc3\xafve ones.\n", "text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "git lfs pull",
        ),
        (b"\x1c\0\0\0TFL3\x14\0", "TensorFlow Lite"),
        (b"\x93NUMPY\x01\0", "NumPy"),
    ];
    for (bytes, what) in cases {
        let message = refused(bytes);
        assert!(message.contains("is not an ONNX model: "), "{message}");
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn a_message_without_a_graph_is_no_model() {
    let model = ModelProto {
        ir_version: Some(8),
        ..Default::default()
    };
    let message = refused(&model.encode_to_vec());
    assert!(message.contains("has no graph"), "{message}");
}

#[test]
fn paths_that_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.onnx");
    let message = read(&missing).unwrap_err().to_string();
    assert!(
        message.contains("missing.onnx: cannot read the file: "),
        "{message}"
    );
    let error = read(dir.path()).unwrap_err();
    assert!(matches!(*error.kind, ReadErrorKind::Folder));
    let empty = dir.path().join("empty.onnx");
    fs::write(&empty, "").unwrap();
    let message = read(&empty).unwrap_err().to_string();
    assert!(message.ends_with("the file is empty"), "{message}");
    #[cfg(unix)]
    {
        let error = read("/dev/zero".as_ref()).unwrap_err();
        assert!(matches!(*error.kind, ReadErrorKind::NotRegular));
    }
}

/// The one field of `ModelProto` that holds the graph, then the graph's one `name`.
fn graph_with(inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![7 << 3 | 2, inner.len() as u8];
    bytes.extend(inner);
    bytes
}

#[test]
fn damage_is_located() {
    let malformed = |bytes: &[u8]| match *decode(bytes.to_vec().into()).unwrap_err().kind {
        ReadErrorKind::Malformed {
            offset,
            place,
            problem,
        } => (offset, place, problem),
        other => panic!("{other}"),
    };
    assert_eq!(
        malformed(&graph_with(&[2 << 3 | 2, 9, b'x'])),
        (
            4,
            "graph.name (GraphProto)".to_string(),
            MalformedProblem::Truncated { needed: 9, left: 1 }
        )
    );
    let (offset, place, problem) = malformed(&graph_with(&[2 << 3 | 2, 1, 0xff]));
    assert_eq!((offset, place.as_str()), (4, "graph.name (GraphProto)"));
    assert_eq!(problem, MalformedProblem::Utf8);
    let (_, place, problem) = malformed(&graph_with(&[2 << 3, 1]));
    assert_eq!(place, "graph.name (GraphProto)");
    assert!(
        matches!(problem, MalformedProblem::WireType { .. }),
        "{problem}"
    );
    for key in [&[0u8, 0][..], &[6, 0], &[7, 0], &[0xf3, 0x01], &[0x80; 11]] {
        let (offset, place, _) = malformed(key);
        assert_eq!((offset, place.as_str()), (0, "ModelProto"));
    }
}

#[test]
fn unknown_fields_are_reported_with_their_place() {
    let mut node = NodeProto::default().encode_to_vec();
    // Field 99, a text, twice.
    for _ in 0..2 {
        node.extend([0x9a, 0x06, 1, b'x']);
    }
    let mut graph = vec![1 << 3 | 2, 0];
    graph.extend([1 << 3 | 2, node.len() as u8]);
    graph.extend(&node);
    let mut bytes = graph_with(&graph);
    // Field 30 of the model itself, a number.
    bytes.extend([0xf0, 0x01, 5]);
    let file = decode(bytes.into()).unwrap();
    let texts: Vec<_> = file.unknown_fields.iter().map(|f| f.to_string()).collect();
    assert_eq!(
        texts,
        [
            "unknown field 99 of NodeProto at graph.node[1] and 1 more",
            "unknown field 30 of ModelProto"
        ]
    );
    assert_eq!(file.unknown_fields[0].field, 99);
    assert_eq!(file.unknown_fields[0].place, "graph.node[1]");
}

#[test]
fn a_file_of_unknown_fields_is_something_else() {
    let mut bytes = graph_with(&[]);
    for field in 100u64..200 {
        prost::encoding::encode_varint(field << 3, &mut bytes);
        bytes.push(1);
    }
    let message = refused(&bytes);
    assert!(
        message.contains("more than 64 kinds of unknown fields"),
        "{message}"
    );
}

fn nested(levels: usize) -> ModelProto {
    let mut graph = GraphProto::default();
    for _ in 0..levels {
        let attribute = AttributeProto {
            g: Some(Box::new(graph)),
            ..Default::default()
        };
        let node = NodeProto {
            attribute: vec![attribute],
            ..Default::default()
        };
        graph = GraphProto {
            node: vec![node],
            ..Default::default()
        };
    }
    ModelProto {
        graph: Some(Box::new(graph)),
        ..Default::default()
    }
}

#[test]
fn depth_is_bounded() {
    // A graph, then three messages a level: 100 messages are allowed.
    let deepest = nested(33);
    assert!(decode(deepest.encode_to_vec().into()).unwrap().model == deepest);
    let message = refused(&nested(34).encode_to_vec());
    assert!(message.contains("nested more than 100 deep"), "{message}");
}

/// A million bytes that stand for half a million nodes pass; what would fill the memory does not.
#[test]
fn memory_is_bounded() {
    let bomb = |nodes: usize| {
        let mut bytes = vec![7 << 3 | 2];
        prost::encoding::encode_varint(2 * nodes as u64, &mut bytes);
        bytes.extend([1 << 3 | 2, 0].repeat(nodes));
        bytes
    };
    decode(bomb(500_000).into()).unwrap();
    let message = refused(&bomb(5_000_000));
    assert!(message.contains("bytes of memory"), "{message}");
}

#[test]
fn every_prefix_is_refused_or_read() {
    let bytes = encode(&small_model()).unwrap();
    let mut read = 0;
    for len in 0..bytes.len() {
        match decode(bytes.slice(..len)) {
            // Cut between two fields of the model itself, after its graph.
            Ok(_) => read += 1,
            Err(error) => assert!(error.path.is_none()),
        }
    }
    assert!(read < 10, "{read} prefixes were read");
}

#[test]
fn every_flipped_bit_is_refused_or_read() {
    let bytes = encode(&small_model()).unwrap();
    for i in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[i] ^= 1 << (i % 8);
        if let Ok(file) = decode(damaged.into()) {
            decode(encode(&file.model).unwrap()).unwrap();
        }
    }
}

#[test]
fn output_that_cannot_be_written_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriteOptions::default();
    let model = full_model();
    let missing = dir.path().join("missing/m.onnx");
    let error = write(&model, &missing, &options).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, WriteError::Io { .. }));
    assert!(message.contains("missing/m.onnx: "), "{message}");
    assert!(!message.contains(".bcosc-"), "{message}");
    for path in [dir.path(), "/".as_ref(), "..".as_ref(), "".as_ref()] {
        let error = write(&model, path, &options).unwrap_err();
        assert!(matches!(error, WriteError::NotAFile(_)), "{error}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write anyway; then there is nothing to test.
    if fs::write(folder.join("probe"), "").is_err() {
        let error = write(
            &full_model(),
            &folder.join("m.onnx"),
            &WriteOptions::default(),
        );
        assert!(matches!(error, Err(WriteError::Io { .. })));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
}
