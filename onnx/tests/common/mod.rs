//! Messages that the tests share. They have every field and every encoding of the wire format, most of which no
//! builder of graphs would write; what tests of the other crates share stands above this one.

// Each test binary uses a part of this.
#![allow(dead_code)]

use bcosc_onnx::DataType;
use bcosc_onnx::proto::*;
use bytes::Bytes;

pub fn text(value: &str) -> Option<String> {
    Some(value.to_string())
}

pub fn pair(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: text(key),
        value: text(value),
    }
}

pub fn raw_tensor(name: &str, data_type: DataType, dims: &[i64], raw: Vec<u8>) -> TensorProto {
    TensorProto {
        name: text(name),
        data_type: Some(data_type.to_i32()),
        dims: dims.to_vec(),
        raw_data: Some(raw.into()),
        ..Default::default()
    }
}

/// Floats 0, 1, 2, ... in `raw_data`.
pub fn floats(name: &str, count: usize) -> TensorProto {
    let raw = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
    raw_tensor(name, DataType::Float, &[count as i64], raw)
}

pub fn external(
    name: &str,
    data_type: DataType,
    dims: &[i64],
    entries: &[(&str, &str)],
) -> TensorProto {
    TensorProto {
        name: text(name),
        data_type: Some(data_type.to_i32()),
        dims: dims.to_vec(),
        data_location: Some(1),
        external_data: entries.iter().map(|(k, v)| pair(k, v)).collect(),
        ..Default::default()
    }
}

/// A model with these initializers and nothing else.
pub fn model_of(initializer: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(10),
        graph: Some(Box::new(GraphProto {
            initializer,
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// A node whose attribute holds `tensor`.
pub fn constant(tensor: TensorProto) -> NodeProto {
    NodeProto {
        output: vec!["c".into()],
        op_type: text("Constant"),
        attribute: vec![AttributeProto {
            name: text("value"),
            r#type: Some(4),
            t: Some(Box::new(tensor)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn dim(value: TensorShapeProtoDimensionValue) -> TensorShapeProtoDimension {
    TensorShapeProtoDimension {
        value: Some(value),
        denotation: text("DATA_BATCH"),
    }
}

fn shape() -> TensorShapeProto {
    TensorShapeProto {
        dim: vec![
            dim(TensorShapeProtoDimensionValue::DimParam("N".into())),
            dim(TensorShapeProtoDimensionValue::DimValue(3)),
        ],
    }
}

fn type_of(value: TypeProtoValue) -> TypeProto {
    TypeProto {
        value: Some(value),
        denotation: text("IMAGE"),
    }
}

fn tensor_type() -> TypeProto {
    type_of(TypeProtoValue::TensorType(TypeProtoTensor {
        elem_type: Some(1),
        shape: Some(shape()),
    }))
}

/// One of each alternative of `TypeProto`.
fn all_types() -> Vec<TypeProto> {
    let element = || Some(Box::new(tensor_type()));
    vec![
        tensor_type(),
        type_of(TypeProtoValue::SequenceType(TypeProtoSequence {
            elem_type: element(),
        })),
        type_of(TypeProtoValue::MapType(TypeProtoMap {
            key_type: Some(7),
            value_type: element(),
        })),
        type_of(TypeProtoValue::OptionalType(TypeProtoOptional {
            elem_type: element(),
        })),
        type_of(TypeProtoValue::SparseTensorType(TypeProtoSparseTensor {
            elem_type: Some(1),
            shape: Some(shape()),
        })),
        type_of(TypeProtoValue::OpaqueType(TypeProtoOpaque {
            domain: text("d"),
            name: text("o"),
        })),
    ]
}

fn value(name: &str, r#type: TypeProto) -> ValueInfoProto {
    ValueInfoProto {
        name: text(name),
        r#type: Some(Box::new(r#type)),
        doc_string: text("a value"),
        metadata_props: vec![pair("k", "v")],
    }
}

fn sparse(name: &str) -> SparseTensorProto {
    let indices = [1i64, 4].iter().flat_map(|i| i.to_le_bytes()).collect();
    SparseTensorProto {
        values: Some(Box::new(floats(name, 2))),
        indices: Some(Box::new(raw_tensor(
            "indices",
            DataType::Int64,
            &[2],
            indices,
        ))),
        dims: vec![2, 3],
    }
}

/// A tensor for each typed field, and one with all the fields that describe it.
fn all_tensors() -> Vec<TensorProto> {
    let typed = |name: &str, data_type: DataType, dims: &[i64]| TensorProto {
        name: text(name),
        data_type: Some(data_type.to_i32()),
        dims: dims.to_vec(),
        ..Default::default()
    };
    vec![
        TensorProto {
            doc_string: text("described"),
            metadata_props: vec![pair("a", "b"), pair("a", "c")],
            ..floats("described", 5000)
        },
        TensorProto {
            float_data: vec![1.5, -0.0],
            ..typed("float", DataType::Complex64, &[])
        },
        TensorProto {
            int32_data: vec![-1, i32::MAX, i32::MIN],
            ..typed("int32", DataType::Int32, &[3])
        },
        TensorProto {
            string_data: vec![Bytes::from_static(b"text"), Bytes::from_static(b"\xff\x00")],
            ..typed("string", DataType::String, &[1, 2])
        },
        TensorProto {
            int64_data: vec![-1, i64::MAX],
            ..typed("int64", DataType::Int64, &[2])
        },
        TensorProto {
            double_data: vec![f64::MIN, 1e-300],
            ..typed("double", DataType::Double, &[2])
        },
        TensorProto {
            uint64_data: vec![u64::MAX, 1],
            ..typed("uint64", DataType::Uint64, &[2])
        },
        TensorProto {
            segment: Some(TensorProtoSegment {
                begin: Some(3),
                end: Some(5),
            }),
            ..floats("segment", 2)
        },
    ]
}

fn subgraph() -> GraphProto {
    GraphProto {
        name: text("branch"),
        node: vec![constant(floats("in a branch", 3))],
        initializer: vec![floats("branch weights", 2)],
        output: vec![value("c", tensor_type())],
        ..Default::default()
    }
}

/// One attribute with every field, which no operator has but the schema allows.
fn attribute() -> AttributeProto {
    AttributeProto {
        name: text("everything"),
        ref_attr_name: text("outer"),
        doc_string: text("an attribute"),
        r#type: Some(1),
        f: Some(-2.5),
        i: Some(-3),
        s: Some(Bytes::from_static(b"\x80bytes")),
        t: Some(Box::new(floats("t", 2))),
        g: Some(Box::new(subgraph())),
        sparse_tensor: Some(Box::new(sparse("sparse t"))),
        tp: Some(Box::new(tensor_type())),
        floats: vec![1.0, f32::INFINITY],
        ints: vec![1, -1],
        strings: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
        tensors: vec![floats("tensors", 1)],
        graphs: vec![subgraph(), subgraph()],
        sparse_tensors: vec![sparse("sparse tensors")],
        type_protos: all_types(),
    }
}

fn sharding() -> ShardingSpecProto {
    ShardingSpecProto {
        tensor_name: text("x"),
        device: vec![1, 2],
        index_to_device_group_map: vec![IntIntListEntryProto {
            key: Some(1),
            value: vec![2, 3],
        }],
        sharded_dim: vec![ShardedDimProto {
            axis: Some(1),
            simple_sharding: vec![
                SimpleShardedDimProto {
                    num_shards: Some(2),
                    dim: Some(SimpleShardedDimProtoDim::DimValue(4)),
                },
                SimpleShardedDimProto {
                    num_shards: Some(3),
                    dim: Some(SimpleShardedDimProtoDim::DimParam("H".into())),
                },
            ],
        }],
    }
}

fn node() -> NodeProto {
    NodeProto {
        input: vec!["x".into(), String::new(), "described".into()],
        output: vec!["y".into()],
        name: text("n"),
        op_type: text("Op"),
        domain: text("custom"),
        overload: text("o"),
        attribute: vec![attribute()],
        doc_string: text("a node"),
        metadata_props: vec![pair("from", "conv1")],
        device_configurations: vec![NodeDeviceConfigurationProto {
            configuration_id: text("two"),
            sharding_spec: vec![sharding()],
            pipeline_stage: Some(1),
        }],
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto {
        domain: text(domain),
        version: Some(version),
    }
}

/// A model that uses every field of every message, none with its default value.
pub fn full_model() -> ModelProto {
    let graph = GraphProto {
        node: vec![node(), constant(floats("constant", 2))],
        name: text("g"),
        initializer: all_tensors(),
        sparse_initializer: vec![sparse("sparse weights")],
        doc_string: text("a graph"),
        input: all_types().into_iter().map(|t| value("x", t)).collect(),
        output: vec![value("y", tensor_type())],
        value_info: vec![value("z", tensor_type())],
        quantization_annotation: vec![TensorAnnotation {
            tensor_name: text("x"),
            quant_parameter_tensor_names: vec![pair("SCALE_TENSOR", "s")],
        }],
        metadata_props: vec![pair("graph", "v")],
    };
    let function = FunctionProto {
        name: text("F"),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["alpha".into()],
        attribute_proto: vec![attribute()],
        node: vec![node()],
        doc_string: text("a function"),
        opset_import: vec![opset("com.example", 21)],
        domain: text("custom"),
        overload: text("o"),
        value_info: vec![value("a", tensor_type())],
        metadata_props: vec![pair("function", "v")],
    };
    ModelProto {
        ir_version: Some(11),
        opset_import: vec![opset("com.example", 24), opset("custom", 1)],
        producer_name: text("tests"),
        producer_version: text("1"),
        domain: text("com.example"),
        model_version: Some(-7),
        doc_string: text("a model"),
        graph: Some(Box::new(graph)),
        metadata_props: vec![pair("model", "v")],
        training_info: vec![TrainingInfoProto {
            initialization: Some(Box::new(subgraph())),
            algorithm: Some(Box::new(subgraph())),
            initialization_binding: vec![pair("w", "i")],
            update_binding: vec![pair("w", "u")],
        }],
        functions: vec![function],
        configuration: vec![DeviceConfigurationProto {
            name: text("two"),
            num_devices: Some(2),
            device: vec!["a".into(), "b".into()],
        }],
    }
}

/// The full model without its one large tensor, for tests that change or cut it byte by byte.
pub fn small_model() -> ModelProto {
    let mut model = full_model();
    if let Some(graph) = &mut model.graph {
        graph.initializer.remove(0);
    }
    model
}
