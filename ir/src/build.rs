//! A builder for models.

use bcosc_onnx::DataType;
use bcosc_onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};

use crate::types::dims_from_text;
use crate::{Attribute, ImportError, Model, Tensor, TensorType};

/// Version of the file format that built models declare.
const IR_VERSION: i64 = 10;

/// Builds a [`Model`] in one expression, value by value.
///
/// Nothing is checked before [`ModelBuilder::finish`]; values are joined by name.
///
/// ```
/// use bcosc_ir::{Attribute, DataType, ModelBuilder, Tensor};
///
/// let model = ModelBuilder::new(20)
///     .input("x", DataType::Float, "batch,3,8,8")
///     .param("w", Tensor::f32s(&[4, 3, 1, 1], vec![0.5; 12]))
///     .op("Conv", &["x", "w"], "y", [Attribute::ints("strides", &[2, 2])])
///     .op("Relu", &["y"], "z", [])
///     .output_as("z", DataType::Float, "batch,4,4,4")
///     .finish()?;
/// assert_eq!(model.graph.ops().len(), 2);
/// # Ok::<(), bcosc_ir::ImportError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelBuilder {
    model: ModelProto,
    graph: GraphProto,
}

impl ModelBuilder {
    /// An empty graph named `main` at a version of the standard operator set.
    pub fn new(opset: i64) -> Self {
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            ..ModelProto::default()
        };
        let graph = GraphProto {
            name: Some("main".to_owned()),
            ..GraphProto::default()
        };
        ModelBuilder { model, graph }.opset("", opset)
    }

    /// Imports another operator set.
    pub fn opset(mut self, domain: &str, version: i64) -> Self {
        self.model.opset_import.push(OperatorSetIdProto {
            domain: Some(domain.to_owned()),
            version: Some(version),
        });
        self
    }

    /// A metadata property of the model.
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        crate::metadata::set(&mut self.model.metadata_props, key, value);
        self
    }

    /// A graph input. `dims` lists sizes, names, and `?` for what is unknown, separated by commas;
    /// an empty text is a scalar.
    pub fn input(mut self, name: &str, dtype: DataType, dims: &str) -> Self {
        self.graph.input.push(value_info(name, dtype, dims));
        self
    }

    /// An initializer.
    pub fn param(mut self, name: &str, tensor: Tensor) -> Self {
        let mut tensor = tensor.into_proto();
        tensor.name = Some(name.to_owned());
        self.graph.initializer.push(tensor);
        self
    }

    /// An operator. `op_type` is `Conv`, or `com.acme::Conv` in another domain. In `inputs` and in
    /// `outputs`, which is separated by commas, an empty name leaves an optional operand out.
    /// The node gets no name, so messages speak of it by its first output.
    pub fn op<A>(mut self, op_type: &str, inputs: &[&str], outputs: &str, attributes: A) -> Self
    where
        A: IntoIterator<Item = Attribute>,
    {
        let (domain, op_type) = op_type.rsplit_once("::").unwrap_or(("", op_type));
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|&i| i.to_owned()).collect(),
            output: outputs.split(',').map(|o| o.trim().to_owned()).collect(),
            op_type: Some(op_type.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            attribute: attributes
                .into_iter()
                .map(|a| crate::export::export_attribute(&a, &Default::default()))
                .collect(),
            ..NodeProto::default()
        });
        self
    }

    /// A node as an ONNX message, for what [`ModelBuilder::op`] does not cover.
    pub fn node(mut self, node: NodeProto) -> Self {
        self.graph.node.push(node);
        self
    }

    /// Declares the type of an intermediate value.
    pub fn value(mut self, name: &str, dtype: DataType, dims: &str) -> Self {
        self.graph.value_info.push(value_info(name, dtype, dims));
        self
    }

    /// An output of the graph, its type left open.
    pub fn output(mut self, name: &str) -> Self {
        self.graph.output.push(ValueInfoProto {
            name: Some(name.to_owned()),
            ..ValueInfoProto::default()
        });
        self
    }

    /// An output of the graph with its type; `dims` as for [`ModelBuilder::input`].
    pub fn output_as(mut self, name: &str, dtype: DataType, dims: &str) -> Self {
        self.graph.output.push(value_info(name, dtype, dims));
        self
    }

    /// The ONNX message.
    pub fn proto(self) -> ModelProto {
        ModelProto {
            graph: Some(Box::new(self.graph)),
            ..self.model
        }
    }

    /// The model; an error where the names do not make a graph.
    pub fn finish(self) -> Result<Model, ImportError> {
        Model::from_proto(self.proto())
    }
}

fn value_info(name: &str, dtype: DataType, dims: &str) -> ValueInfoProto {
    let shape = Some(dims_from_text(dims));
    TensorType { dtype, shape }.to_value_info(name)
}
