//! Elements come out the same from whichever field holds them.

mod common;

use bcosc_onnx::proto::TensorProto;
use bcosc_onnx::{DataType, TensorProblem, decode, encode};
use bytes::Bytes;
use common::*;

fn typed(data_type: DataType, dims: &[i64]) -> TensorProto {
    TensorProto {
        name: text("w"),
        data_type: Some(data_type.to_i32()),
        dims: dims.to_vec(),
        ..Default::default()
    }
}

fn int32(data_type: DataType, count: i64, values: &[i32]) -> Vec<u8> {
    let tensor = TensorProto {
        int32_data: values.to_vec(),
        ..typed(data_type, &[count])
    };
    tensor.payload().unwrap().to_vec()
}

fn problem(tensor: &TensorProto) -> TensorProblem {
    let error = tensor.payload().unwrap_err();
    assert_eq!(error.tensor, "w");
    error.problem
}

#[test]
fn small_types_lie_in_int32_data() {
    use DataType as D;
    assert_eq!(
        int32(D::Int32, 2, &[-1, 7]),
        [255, 255, 255, 255, 7, 0, 0, 0]
    );
    assert_eq!(int32(D::Int16, 2, &[-2, 1]), [254, 255, 1, 0]);
    assert_eq!(int32(D::Uint16, 1, &[0xfffe]), [254, 255]);
    assert_eq!(int32(D::Float16, 1, &[0x3c00]), [0, 0x3c]);
    assert_eq!(int32(D::Bfloat16, 1, &[0xbf80]), [0x80, 0xbf]);
    assert_eq!(int32(D::Int8, 2, &[-1, 127]), [255, 127]);
    assert_eq!(int32(D::Uint8, 2, &[255, 0]), [255, 0]);
    assert_eq!(int32(D::Bool, 3, &[0, 1, 256]), [0, 1, 1]);
    assert_eq!(int32(D::Float8E4M3Fn, 1, &[0x7e]), [0x7e]);
    assert_eq!(int32(D::Float8E8M0, 1, &[0x81]), [0x81]);
    // Packed by the writer: one value is a byte.
    assert_eq!(int32(D::Int4, 3, &[0x21, 0x0f]), [0x21, 0x0f]);
    assert_eq!(int32(D::Uint2, 5, &[0xe4, 1]), [0xe4, 1]);
    // One value an element, packed here: the example of the specification's formula.
    let x = [0x3f, 0x01, 0x2a, 0x15];
    let packed = [
        x[0] | (x[1] & 3) << 6,
        x[1] >> 2 | (x[2] & 15) << 4,
        x[2] >> 4 | x[3] << 2,
    ];
    assert_eq!(int32(D::Float6E2M3, 4, &x), packed.map(|v| v as u8));
    assert_eq!(int32(D::Float6E3M2, 5, &[1, 0, 0, 0, 2]), [1, 0, 0, 2]);
}

#[test]
fn wide_types_lie_in_their_own_fields() {
    let complex = TensorProto {
        float_data: vec![1.0, -1.0],
        ..typed(DataType::Complex64, &[1])
    };
    assert_eq!(
        complex.payload().unwrap()[..],
        [0, 0, 128, 63, 0, 0, 128, 191]
    );
    let doubles = TensorProto {
        double_data: vec![1.0; 4],
        ..typed(DataType::Complex128, &[2])
    };
    assert_eq!(doubles.payload().unwrap().len(), 32);
    let narrow = TensorProto {
        uint64_data: vec![u64::from(u32::MAX)],
        ..typed(DataType::Uint32, &[])
    };
    assert_eq!(narrow.payload().unwrap()[..], [255; 4]);
    let strings = TensorProto {
        string_data: vec![Bytes::from_static(b"a")],
        ..typed(DataType::String, &[1])
    };
    assert_eq!(strings.strings().unwrap(), ["a"]);
    assert_eq!(problem(&strings), TensorProblem::Strings);
    assert!(complex.strings().is_err());
}

#[test]
fn nothing_is_taken_for_granted() {
    let t = |dims: &[i64]| typed(DataType::Float, dims);
    assert_eq!(
        problem(&t(&[2, -3])),
        TensorProblem::NegativeDim { axis: 1, dim: -3 }
    );
    assert_eq!(
        problem(&t(&[1 << 40, 1 << 40])),
        TensorProblem::TooLarge(vec![1 << 40, 1 << 40])
    );
    // The elements fit 64 bits and their bytes do not.
    assert_eq!(
        problem(&t(&[1 << 62])),
        TensorProblem::TooLarge(vec![1 << 62])
    );
    assert_eq!(t(&[1 << 60, 1 << 60, 0]).payload().unwrap().len(), 0);
    assert!(matches!(
        problem(&t(&[])),
        TensorProblem::ValueCount {
            expected: 1,
            found: 0,
            ..
        }
    ));
    let short = raw_tensor("w", DataType::Int4, &[3], vec![1]);
    assert!(matches!(
        problem(&short),
        TensorProblem::ByteCount {
            expected: 2,
            found: 1,
            ..
        }
    ));
    let wrong = TensorProto {
        double_data: vec![1.0],
        ..t(&[1])
    };
    assert!(matches!(
        problem(&wrong),
        TensorProblem::WrongField {
            expected: "float_data",
            found: "double_data",
            ..
        }
    ));
    let both = TensorProto {
        float_data: vec![1.0],
        ..raw_tensor("w", DataType::Float, &[1], vec![0; 4])
    };
    assert!(matches!(problem(&both), TensorProblem::WrongField { .. }));
    let unknown = TensorProto {
        data_type: Some(99),
        ..t(&[1])
    };
    assert_eq!(problem(&unknown), TensorProblem::DataType(99));
    assert_eq!(
        problem(&TensorProto {
            data_type: None,
            ..t(&[1])
        }),
        TensorProblem::DataType(0)
    );
    assert_eq!(
        problem(&external("w", DataType::Float, &[1], &[("location", "x")])),
        TensorProblem::Unresolved
    );
}

#[test]
fn reading_checks_every_tensor_and_says_where() {
    let mut model = full_model();
    let branch = |m: &mut bcosc_onnx::proto::ModelProto, dims: Vec<i64>| {
        let graph = m.graph.as_mut().unwrap();
        graph.node[0].attribute[0].graphs[1].initializer[0].dims = dims;
    };
    branch(&mut model, vec![1 << 60]);
    let error = decode(encode(&model).unwrap()).unwrap_err().to_string();
    assert_eq!(
        error,
        "model in memory: tensor `branch weights`: it has 8 bytes of data, while float \
         [1152921504606846976] takes 4611686018427387904 (at \
         graph.node[0].attribute[0].graphs[1].initializer[0])"
    );
    branch(&mut model, vec![3]);
    let error = decode(encode(&model).unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("it has 8 bytes of data, while float [3] takes 12"),
        "{error}"
    );
    // Unknown types and segments pass; the error comes when elements are read.
    branch(&mut model, vec![2]);
    model.graph.as_mut().unwrap().initializer[0].data_type = Some(77);
    assert_eq!(decode(encode(&model).unwrap()).unwrap().model, model);
}
