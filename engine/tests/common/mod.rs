//! Small models, built node by node.

#![allow(dead_code)] // every test file uses a part

use bcosc_ir::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto,
};
use bcosc_ir::{DataType, Dim, Model, Tensor, TensorType};

/// A graph in the making.
pub struct Net {
    graph: GraphProto,
    opset: i64,
}

impl Net {
    pub fn new(opset: i64) -> Self {
        Net {
            graph: GraphProto::default(),
            opset,
        }
    }

    /// A float input; sizes that are not numbers are symbols, `?` is nothing.
    pub fn input(self, name: &str, dims: &[&str]) -> Self {
        self.typed_input(name, DataType::Float, dims)
    }

    pub fn typed_input(mut self, name: &str, dtype: DataType, dims: &[&str]) -> Self {
        self.graph.input.push(declared(name, dtype, dims));
        self
    }

    pub fn weight(mut self, name: &str, tensor: Tensor) -> Self {
        let mut proto = tensor.into_proto();
        proto.name = Some(name.to_owned());
        self.graph.initializer.push(proto);
        self
    }

    pub fn node(self, op: &str, inputs: &[&str], output: &str) -> Self {
        self.node_with(op, inputs, output, vec![])
    }

    pub fn node_with(
        mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attribute: Vec<AttributeProto>,
    ) -> Self {
        let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
        self.graph.node.push(NodeProto {
            op_type: Some(op.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            input: inputs.iter().map(|&s| s.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute,
            ..NodeProto::default()
        });
        self
    }

    pub fn value_info(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph
            .value_info
            .push(declared(name, DataType::Float, dims));
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        let info = ValueInfoProto {
            name: Some(name.to_owned()),
            ..ValueInfoProto::default()
        };
        self.graph.output.push(info);
        self
    }

    pub fn typed_output(mut self, name: &str, dtype: DataType, dims: &[&str]) -> Self {
        self.graph.output.push(declared(name, dtype, dims));
        self
    }

    /// The graph and its opset.
    pub fn parts(self) -> (GraphProto, i64) {
        (self.graph, self.opset)
    }

    pub fn model(self) -> Model {
        let opset = OperatorSetIdProto {
            domain: None,
            version: Some(self.opset),
        };
        let proto = ModelProto {
            ir_version: Some(8),
            opset_import: vec![opset],
            graph: Some(Box::new(self.graph)),
            ..ModelProto::default()
        };
        Model::from_proto(proto).unwrap()
    }
}

fn declared(name: &str, dtype: DataType, dims: &[&str]) -> ValueInfoProto {
    TensorType {
        dtype,
        shape: Some(shape(dims)),
    }
    .to_value_info(name)
}

/// Dimensions from text.
pub fn shape(dims: &[&str]) -> Vec<Dim> {
    let dim = |text: &&str| match text.parse() {
        Ok(size) => Dim::Known(size),
        Err(_) if *text == "?" => Dim::Unknown,
        Err(_) => Dim::Symbol((*text).to_owned()),
    };
    dims.iter().map(dim).collect()
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: Some(value),
        r#type: Some(2),
        ..attribute(name)
    }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: values.to_vec(),
        r#type: Some(7),
        ..attribute(name)
    }
}

pub fn text(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto {
        s: Some(value.into()),
        r#type: Some(3),
        ..attribute(name)
    }
}

pub fn held(name: &str, tensor: Tensor) -> AttributeProto {
    AttributeProto {
        t: Some(Box::new(tensor.into_proto())),
        r#type: Some(4),
        ..attribute(name)
    }
}

pub fn graph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        g: Some(Box::new(graph)),
        r#type: Some(5),
        ..attribute(name)
    }
}

fn attribute(name: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        ..AttributeProto::default()
    }
}

/// Numbers without a pattern that a mistake could keep.
pub fn spread(dims: &[u64], seed: u64) -> Tensor {
    let count = dims.iter().product::<u64>();
    let element = |i: u64| ((i + 17 * seed) * 7919 % 1013) as f32 / 1013.0 - 0.5;
    Tensor::f32s(dims, (0..count).map(element).collect())
}
