//! Models as text.

use bcosc_ir::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    SparseTensorProto, TensorProto, TensorShapeProto, TensorShapeProtoDimension,
    TensorShapeProtoDimensionValue, TrainingInfoProto, TypeProto, TypeProtoMap, TypeProtoOpaque,
    TypeProtoOptional, TypeProtoSequence, TypeProtoTensor, TypeProtoValue, ValueInfoProto,
};
use bcosc_ir::{Attribute, DataType, Model, Op, Patch, Tensor, TextOptions};
use bcosc_testing::message::*;
use bcosc_testing::value;

fn attribute(attribute: Attribute) -> AttributeProto {
    attribute.proto().clone()
}

fn typed(value: TypeProtoValue) -> Box<TypeProto> {
    Box::new(TypeProto {
        denotation: None,
        value: Some(value),
    })
}

fn tensor_type(number: i32, shape: Option<TensorShapeProto>) -> Box<TypeProto> {
    typed(TypeProtoValue::TensorType(TypeProtoTensor {
        elem_type: Some(number),
        shape,
    }))
}

fn declare(name: &str, r#type: Box<TypeProto>) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(r#type),
        ..ValueInfoProto::default()
    }
}

fn shape() -> TensorShapeProto {
    let dim = |value| TensorShapeProtoDimension {
        value,
        denotation: None,
    };
    let named = |name: &str| Some(TensorShapeProtoDimensionValue::DimParam(name.to_owned()));
    TensorShapeProto {
        dim: vec![
            dim(named("batch")),
            dim(named("2*n")),
            dim(Some(TensorShapeProtoDimensionValue::DimValue(3))),
            dim(None),
        ],
    }
}

/// Most forms that the syntax has, and some that it has not.
fn everything() -> Model {
    let sequence = typed(TypeProtoValue::SequenceType(TypeProtoSequence {
        elem_type: Some(tensor_type(10, None)),
    }));
    let map = typed(TypeProtoValue::MapType(TypeProtoMap {
        key_type: Some(8),
        value_type: Some(typed(TypeProtoValue::OptionalType(TypeProtoOptional {
            elem_type: Some(sequence.clone()),
        }))),
    }));
    let opaque = typed(TypeProtoValue::OpaqueType(TypeProtoOpaque {
        domain: Some("com.acme".to_owned()),
        name: Some("Thing".to_owned()),
    }));
    let raw = |name: &str, dtype, dims: &[u64], bytes: &'static [u8]| TensorProto {
        name: Some(name.to_owned()),
        ..Tensor::from_bytes(dtype, dims, bytes.into()).into_proto()
    };
    let texts = TensorProto {
        name: Some("texts".to_owned()),
        dims: vec![2],
        data_type: Some(DataType::String.to_i32()),
        string_data: vec!["a \"quote\"".into(), "back\\slash".into()],
        ..TensorProto::default()
    };
    let sparse = SparseTensorProto {
        values: Some(Box::new(tensor("holes", &[1.0]))),
        dims: vec![3, 4],
        ..SparseTensorProto::default()
    };
    let conv = NodeProto {
        attribute: vec![
            attribute(Attribute::ints("strides", &[2, -1])),
            attribute(Attribute::ints("axes", &[])),
            attribute(Attribute::int("group", 1)),
            attribute(Attribute::float("alpha", 1.0)),
            attribute(Attribute::string("auto_pad", "SAME \"UPPER\"")),
            attribute(Attribute::tensor("value", Tensor::i64_vec(&[1, 2]))),
            AttributeProto {
                name: Some("floats".to_owned()),
                r#type: Some(6),
                floats: vec![0.1, 1e-30, f32::NAN, f32::NEG_INFINITY, -0.0],
                ..AttributeProto::default()
            },
            AttributeProto {
                name: Some("strings".to_owned()),
                r#type: Some(8),
                strings: vec!["a".into(), "b".into()],
                ..AttributeProto::default()
            },
            AttributeProto {
                name: Some("type".to_owned()),
                r#type: Some(13),
                tp: Some(tensor_type(1, Some(TensorShapeProto::default()))),
                ..AttributeProto::default()
            },
        ],
        domain: Some("com.acme".to_owned()),
        overload: Some("fast".to_owned()),
        doc_string: Some("two\nlines".to_owned()),
        metadata_props: vec![entry("namespace", "layer 1")],
        ..named("conv/1", node("Conv", &["x", "", "large"], &["c", ""]))
    };
    let nested = GraphProto {
        name: Some("a nested graph".to_owned()),
        initializer: vec![tensor("inner", &[1.0])],
        ..branch(vec![node("Add", &["c", "inner"], &["t"])], &["t"])
    };
    let other = branch(
        vec![if_node(
            "cond",
            branch(vec![], &["c"]),
            branch(vec![], &["x"]),
            "e",
        )],
        &["e"],
    );
    let function = FunctionProto {
        name: Some("Local".to_owned()),
        domain: Some("local".to_owned()),
        input: strings(&["a", "b"]),
        output: strings(&["r"]),
        attribute: strings(&["alpha"]),
        attribute_proto: vec![attribute(Attribute::float("beta", 2.5))],
        value_info: vec![info("m")],
        node: vec![NodeProto {
            attribute: vec![AttributeProto {
                name: Some("alpha".to_owned()),
                r#type: Some(1),
                ref_attr_name: Some("alpha".to_owned()),
                ..AttributeProto::default()
            }],
            ..node("Elu", &["a"], &["r"])
        }],
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(20),
        }],
        doc_string: Some("does little".to_owned()),
        ..FunctionProto::default()
    };
    let graph = GraphProto {
        name: Some("main graph".to_owned()),
        input: vec![
            declare("x", tensor_type(1, Some(shape()))),
            declare("cond", tensor_type(9, Some(TensorShapeProto::default()))),
            declare("seq", sequence),
            declare("m.ap", map),
            declare("float", opaque),
            ValueInfoProto {
                r#type: None,
                ..info("untyped")
            },
        ],
        initializer: vec![
            tensor("large", &[0.5; 9]),
            raw("half", DataType::Float16, &[2], &[0, 0x3c, 0, 0xbc]),
            raw("bits", DataType::Int4, &[3], &[0x21, 0x03]),
            raw("sixes", DataType::Float6E2M3, &[4], &[0x41, 0x30, 0x10]),
            raw("flag", DataType::Bool, &[], &[1]),
            raw(
                "complex",
                DataType::Complex64,
                &[1],
                &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0],
            ),
            raw("none", DataType::Double, &[0], &[]),
            raw("top", DataType::Uint64, &[1], &[255; 8]),
            texts,
        ],
        sparse_initializer: vec![sparse],
        value_info: vec![declare("c", tensor_type(1, None))],
        node: vec![
            conv,
            NodeProto {
                attribute: vec![
                    graph_attribute("then_branch", nested),
                    graph_attribute("else_branch", other),
                ],
                ..node("If", &["cond"], &["y"])
            },
            node("Sink", &["y"], &[]),
        ],
        output: vec![declare("y", tensor_type(1, None))],
        ..GraphProto::default()
    };
    let proto = ModelProto {
        opset_import: vec![
            OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(20),
            },
            OperatorSetIdProto {
                domain: Some("com.acme".to_owned()),
                version: Some(1),
            },
        ],
        producer_name: Some("a \\ test".to_owned()),
        metadata_props: vec![entry("author", "someone"), entry("note", "a \"b\"")],
        functions: vec![function],
        training_info: vec![TrainingInfoProto::default()],
        ..model(graph)
    };
    let mut model = Model::from_proto(proto).unwrap();
    let y = value(&model, "y");
    let mut patch = Patch::at(y.node);
    let new = patch.op(Op::new("", "Relu"), &[y.into()]);
    patch.replace(y, new);
    model.graph.apply(patch).unwrap();
    model
}

#[test]
fn every_form() {
    insta::assert_snapshot!(everything().to_text(TextOptions::default()));
}

#[test]
fn every_form_in_full() {
    insta::assert_snapshot!(everything().to_text(TextOptions { full: true }));
}

#[test]
fn a_digest_tells_weights_apart() {
    let text = |change: usize| {
        let mut elements = vec![1.0; 100];
        elements[change] = 2.0;
        let graph = GraphProto {
            initializer: vec![tensor("w", &elements)],
            ..GraphProto::default()
        };
        Model::from_proto(model(graph)).unwrap().to_string()
    };
    assert_eq!(text(50), text(50));
    assert_ne!(text(50), text(51));
    assert_ne!(text(98), text(99));
}
