//! Properties that hold for every input.

mod common;

use std::sync::LazyLock;

use bcosc_onnx::proto::{ModelProto, TensorProto};
use bcosc_onnx::{DataType, ExternalData, WriteOptions, decode, encode, read, write};
use bytes::Bytes;
use common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

static VALID: LazyLock<Bytes> = LazyLock::new(|| encode(&small_model()).unwrap());

/// Whatever the bytes are: an error, or a model that is written and read back the same.
fn error_or_model(bytes: Vec<u8>) {
    if let Ok(file) = decode(bytes.into()) {
        let again = encode(&file.model).unwrap();
        let back = decode(again.clone()).unwrap();
        assert_eq!(back.unknown_fields, []);
        assert!(encode(&back.model).unwrap() == again);
        for tensor in &file.model.graph.unwrap().initializer {
            if let Ok(payload) = tensor.payload() {
                assert_eq!(payload.len() as u64, tensor.byte_len().unwrap());
            }
        }
    }
}

/// A tensor of any type, in `raw_data` or in the typed field.
fn tensor() -> impl Strategy<Value = TensorProto> {
    let parts = (
        select(DataType::ALL),
        vec(0i64..5, 0..4),
        any::<bool>(),
        vec(any::<u64>(), 256),
    );
    parts.prop_map(|(data_type, dims, raw, random)| {
        let elements = dims.iter().product::<i64>() as usize;
        let mut tensor = TensorProto {
            name: text("t"),
            data_type: Some(data_type.to_i32()),
            dims,
            ..Default::default()
        };
        let bytes = data_type.byte_len(elements as u64).map(|len| len as usize);
        if raw && let Some(len) = bytes {
            let random = random.iter().flat_map(|v| v.to_le_bytes());
            tensor.raw_data = Some(random.take(len).collect());
            return tensor;
        }
        use DataType as D;
        let random = random.into_iter();
        match data_type {
            D::Float => tensor.float_data = random.map(|v| v as f32).take(elements).collect(),
            D::Complex64 => {
                tensor.float_data = random.map(|v| v as f32).take(2 * elements).collect()
            }
            D::Double => tensor.double_data = random.map(|v| v as f64).take(elements).collect(),
            D::Complex128 => {
                tensor.double_data = random.map(|v| v as f64).take(2 * elements).collect()
            }
            D::Int64 => tensor.int64_data = random.map(|v| v as i64).take(elements).collect(),
            D::Uint32 | D::Uint64 => tensor.uint64_data = random.take(elements).collect(),
            D::String => {
                let strings = random.map(|v| Bytes::copy_from_slice(&v.to_le_bytes()));
                tensor.string_data = strings.take(elements).collect();
            }
            _ => {
                let packed = data_type.bits().is_some_and(|bits| bits < 6);
                let count = if packed { bytes.unwrap_or(0) } else { elements };
                tensor.int32_data = random.map(|v| v as i32).take(count).collect();
            }
        }
        tensor
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..400)) {
        error_or_model(bytes);
    }

    #[test]
    fn any_bytes_in_a_graph(bytes in vec(any::<u8>(), 0..120)) {
        let mut model = vec![7 << 3 | 2, bytes.len() as u8];
        model.extend(bytes);
        error_or_model(model);
    }

    #[test]
    fn a_mutated_model(changes in vec((any::<Index>(), any::<u8>()), 1..8), cut in any::<Index>()) {
        let mut bytes = VALID.to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        error_or_model(bytes);
    }

    #[test]
    fn a_spliced_model(from in any::<Index>(), to in any::<Index>(), len in 1usize..200) {
        let mut bytes = VALID.to_vec();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let part = bytes[from..(from + len).min(bytes.len())].to_vec();
        bytes.splice(to..to, part);
        error_or_model(bytes);
    }

    #[test]
    fn tensors_come_back(tensors in vec(tensor(), 0..6)) {
        let model = model_of(tensors);
        let back = decode(encode(&model).unwrap()).unwrap().model;
        prop_assert_eq!(&back, &model);
    }

    #[test]
    fn raw_and_typed_are_the_same_elements(tensor in tensor()) {
        if tensor.data_type == Some(DataType::String.to_i32()) {
            let count = tensor.element_count().unwrap();
            prop_assert_eq!(tensor.strings().unwrap().len() as u64, count);
            return Ok(());
        }
        let payload = tensor.payload().unwrap();
        prop_assert_eq!(payload.len() as u64, tensor.byte_len().unwrap());
        let raw = TensorProto {
            raw_data: Some(payload.clone()),
            dims: tensor.dims.clone(),
            data_type: tensor.data_type,
            ..Default::default()
        };
        prop_assert_eq!(raw.payload().unwrap(), payload);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tensors_come_back_from_outside(sizes in vec(0usize..3000, 0..8)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        let model = model_of(sizes.into_iter().map(|n| floats(&n.to_string(), n)).collect());
        let options = WriteOptions { external_data: ExternalData::Always };
        let written = write(&model, &path, &options).unwrap();
        let file = read(&path).unwrap();
        prop_assert_eq!(file.bytes, written.bytes);
        let inside: ModelProto = decode(encode(&file.model).unwrap()).unwrap().model;
        prop_assert!(inside == model);
    }
}
