//! An ONNX graph as tract's untyped graph.
//!
//! tract's own reader takes a whole encoded model, copies every weight on the way and gives up at
//! the first node that it cannot take. Here only the nodes pass through its decoder, weights go
//! straight from the model file into tract's memory (or stay out of it, where only their types
//! matter), and what tract cannot compute is left out with a reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use bcosc_ir::onnx::proto::{GraphProto, TensorProto, ValueInfoProto};
use bcosc_ir::{DataType, Model, Tensor, TensorType};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb;
use tract_onnx::prelude::{InferenceFact, InferenceModel, Tensor as TractTensor};
use tract_onnx::tract_hir::internal::{InferenceOp, InletId, OutletId, TVec, TypedFact, tvec};
use tract_onnx::tract_hir::ops::konst::Const;
use tract_onnx::tract_hir::ops::source::Source;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use super::constants::{Constants, is_constant, keep_type, take_constant};
use super::fault::{Fault, guarded};
use super::node::is_standard;
use super::operators::{build, describe, label, skeleton, unsupported};
use super::refused::refused;
use super::rewrite::activations::write_out;
use super::rewrite::output_shape::cut_instead;
use super::rewrite::resize::{self, resize_instead};
use super::rewrite::sequences::slice_instead;
use super::shared::Shared;
use super::symbols::Symbols;
use super::tensor::{Halves, to_datum_type, to_tract};
use crate::{EngineError, Port, Unsupported};

/// Integers of at most this many bytes are always given: shapes are computed from them.
const SHAPE_BYTES: u64 = 1 << 16;

/// Which weights are loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'s> {
    /// All; these need not be copied again.
    Values(Option<&'s Shared>),
    /// Those of at most this many bytes; of the others the types only.
    UpTo(u64),
}

/// A graph loaded into tract.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Its inputs and outputs are in the order of those below.
    pub model: InferenceModel,
    /// What has to be fed, as the file declares it.
    pub inputs: Vec<Port>,
    /// What is computed, as the file declares it.
    pub outputs: Vec<Port>,
    /// Graph inputs and what nodes compute; initializers are not among them.
    pub values: Vec<(String, OutletId)>,
    /// What tract cannot compute, and why.
    pub unsupported: Vec<Unsupported>,
    pub halves: Halves,
}

/// Builds tract's graph.
pub(crate) fn load(model: &Model, weights: Weights<'_>) -> Result<Loaded, EngineError> {
    build_graph(model, weights).map_err(Fault::loading)
}

fn build_graph(model: &Model, weights: Weights<'_>) -> Result<Loaded, Fault> {
    let mut proto = model.to_proto();
    let graph = proto.graph.take().map(|graph| *graph).unwrap_or_default();
    let declared = declared_types(&graph);
    let halves = match weights {
        Weights::Values(_) => Halves::AsFloat,
        Weights::UpTo(_) if names_half_precision(&graph) => Halves::Bfloat16Unknown,
        Weights::UpTo(_) => Halves::Bfloat16AsFloat16,
    };

    let mut loader = Loader::new(weights, halves);
    loader.initializers(graph.initializer)?;
    for sparse in graph.sparse_initializer {
        let name = sparse.values.and_then(|values| values.name);
        loader.constant(&name.unwrap_or_default(), None)?;
    }
    let inputs = loader.inputs(&graph.input)?;
    let (constants, mut nodes): (Vec<_>, Vec<_>) = graph.node.into_iter().partition(is_constant);
    for node in constants {
        let name = node.output.first().cloned().unwrap_or_default();
        let outlet = loader.constant(&name, take_constant(node).as_ref())?;
        loader.values.push((name, outlet));
    }
    let dtype_of = |name: &str| Some(loader.small.get(name)?.dtype());
    nodes.iter_mut().for_each(|node| keep_type(node, &dtype_of));
    let mut taken = slice_instead(&mut nodes, &loader.small);
    taken.extend(resize_instead(&mut nodes, model.opset("").unwrap_or(0)));
    if matches!(weights, Weights::Values(_)) {
        taken.extend(write_out(&mut nodes));
        taken.extend(cut_instead(&mut nodes, model.opset("").unwrap_or(0)));
    }
    for (name, tensor) in taken {
        loader.constant(&name, Some(&tensor))?;
    }
    loader.nodes(&skeleton(proto.opset_import, nodes, halves)?, &declared)?;

    let port = |name: String| Port {
        tensor_type: declared.get(&name).cloned(),
        name,
    };
    let names = graph.output.into_iter().filter_map(|o| o.name);
    let outputs: Vec<Port> = names.map(port).collect();
    let outlets = outputs
        .iter()
        .map(|port| loader.outlet(&port.name, || "the graph's outputs".into()));
    loader.model.outputs = outlets.collect::<Result<_, _>>()?;
    // Outputs without consumers can be omitted.
    let is_read = |id: usize| {
        let mut outputs = loader.model.node(id).outputs.iter();
        outputs.any(|o| !o.successors.is_empty())
            || loader.model.outputs.iter().any(|outlet| outlet.node == id)
    };
    let unsupported = loader.unsupported.iter().filter(|(id, _)| is_read(*id));
    let unsupported = unsupported.map(|(_, part)| part.clone()).collect();
    Ok(Loaded {
        model: loader.model,
        inputs,
        outputs,
        values: loader.values,
        unsupported,
        halves,
    })
}

/// The tensor types that the file declares.
fn declared_types(graph: &GraphProto) -> BTreeMap<String, TensorType> {
    let infos = graph.value_info.iter().chain(&graph.output);
    infos
        .filter_map(|info| Some((info.name.clone()?, tensor_type(info)?)))
        .collect()
}

fn tensor_type(info: &ValueInfoProto) -> Option<TensorType> {
    TensorType::from_proto(info.r#type.as_ref()?)
}

/// Whether half precision occurs, so that it cannot stand for bfloat16.
fn names_half_precision(graph: &GraphProto) -> bool {
    let half = DataType::Float16.to_i32();
    let typed = |tensor: &TensorProto| tensor.data_type == Some(half);
    graph.initializer.iter().any(typed)
        || graph
            .input
            .iter()
            .filter_map(tensor_type)
            .any(|t| t.dtype == DataType::Float16)
        || graph
            .node
            .iter()
            .flat_map(|node| &node.attribute)
            .any(|attribute| {
                attribute.t.as_deref().is_some_and(typed)
                    || (attribute.name.as_deref() == Some("to") && attribute.i == Some(half.into()))
            })
}

struct Loader<'s> {
    model: InferenceModel,
    outlets: BTreeMap<String, OutletId>,
    values: Vec<(String, OutletId)>,
    /// By the node that has no operator.
    unsupported: Vec<(usize, Unsupported)>,
    /// Integers that nodes may be rewritten by.
    small: Constants,
    symbols: Symbols,
    weights: Weights<'s>,
    halves: Halves,
}

impl<'s> Loader<'s> {
    fn new(weights: Weights<'s>, halves: Halves) -> Self {
        let model = InferenceModel::default();
        let symbols = Symbols::new(model.symbols.clone());
        Loader {
            model,
            outlets: BTreeMap::new(),
            values: Vec::new(),
            unsupported: Vec::new(),
            small: Constants::new(),
            symbols,
            weights,
            halves,
        }
    }

    fn initializers(&mut self, initializers: Vec<TensorProto>) -> Result<(), Fault> {
        for proto in initializers {
            let name = proto.name.clone().unwrap_or_default();
            let tensor = Tensor::from_proto(proto)
                .map_err(|e| Fault::new(format!("constant `{name}`"), e))?;
            self.constant(&name, Some(&tensor))?;
        }
        Ok(())
    }

    /// A constant, or its type alone.
    fn constant(&mut self, name: &str, tensor: Option<&Tensor>) -> Result<OutletId, Fault> {
        let Some(tensor) = tensor else {
            let reason = "it is neither dense nor numeric".to_owned();
            return self.withheld(name, reason, InferenceFact::default());
        };
        let datum_type = to_datum_type(tensor.dtype(), self.halves);
        if !self.shows(tensor) || datum_type.is_none() {
            let fact = self.symbols.value_fact(datum_type, &tensor.tensor_type());
            let reason = EngineError::DataType(tensor.dtype()).to_string();
            return self.withheld(name, reason, fact);
        }
        if tensor.dtype() == DataType::Int64 && tensor.len() <= 64 {
            self.small.insert(name.to_owned(), tensor.clone());
        }
        let value = self.value(tensor);
        let value = value.map_err(|e| Fault::new(format!("constant `{name}`"), e))?;
        let added = guarded(
            || format!("constant `{name}`"),
            || {
                let fact = TypedFact::try_from(&value)?.into();
                self.model.add_node(name, Const::new(value)?, tvec![fact])
            },
        );
        let outlet = OutletId::from(added?);
        self.outlets.insert(name.to_owned(), outlet);
        Ok(outlet)
    }

    fn value(&self, tensor: &Tensor) -> Result<Arc<TractTensor>, EngineError> {
        if let Weights::Values(Some(shared)) = self.weights
            && let Some(value) = shared.get(tensor)?
        {
            return Ok(value);
        }
        Ok(Arc::new(to_tract(tensor, self.halves)?))
    }

    /// Whether tract gets a constant's value.
    fn shows(&self, tensor: &Tensor) -> bool {
        let Weights::UpTo(limit) = self.weights else {
            return tensor.dtype() != DataType::String;
        };
        match tensor.dtype() {
            // What stands for bfloat16 while inferring would round differently.
            DataType::String | DataType::Bfloat16 => false,
            DataType::Int64 | DataType::Int32 => tensor.byte_len() <= limit.max(SHAPE_BYTES),
            _ => tensor.byte_len() <= limit,
        }
    }

    /// A constant whose value tract does not have.
    fn withheld(
        &mut self,
        name: &str,
        reason: String,
        fact: InferenceFact,
    ) -> Result<OutletId, Fault> {
        let outlet = self.source(name, fact)?;
        if matches!(self.weights, Weights::Values(_)) {
            let (name, op) = (name.to_owned(), None);
            let part = Unsupported { name, op, reason };
            self.unsupported.push((outlet.node, part));
        }
        Ok(outlet)
    }

    fn source(&mut self, name: &str, fact: InferenceFact) -> Result<OutletId, Fault> {
        let add = || self.model.add_node(name, Source::new(), tvec![fact]);
        let outlet = OutletId::from(guarded(|| format!("`{name}`"), add)?);
        self.outlets.insert(name.to_owned(), outlet);
        Ok(outlet)
    }

    /// Graph inputs; those that an initializer has a value for are constants.
    fn inputs(&mut self, infos: &[ValueInfoProto]) -> Result<Vec<Port>, Fault> {
        let named = infos
            .iter()
            .map(|info| (info.name.as_deref().unwrap_or_default(), tensor_type(info)));
        let free: Vec<_> = named
            .filter(|(name, _)| !self.outlets.contains_key(*name))
            .collect();
        self.symbols
            .reserve(free.iter().filter_map(|(_, declared)| declared.as_ref()));
        let mut ports = Vec::new();
        for (name, declared) in free {
            let fact = declared
                .as_ref()
                .map_or_else(InferenceFact::default, |declared| {
                    let datum_type = to_datum_type(declared.dtype, self.halves);
                    self.symbols.input_fact(datum_type, declared)
                });
            let outlet = self.source(name, fact)?;
            self.model.inputs.push(outlet);
            self.values.push((name.to_owned(), outlet));
            ports.push(Port {
                name: name.to_owned(),
                tensor_type: declared,
            });
        }
        Ok(ports)
    }

    fn outlet(&self, name: &str, user: impl FnOnce() -> String) -> Result<OutletId, Fault> {
        let found = self.outlets.get(name).copied();
        found.ok_or_else(|| {
            let user = user();
            Fault::new(user, format!("`{name}` is not defined"))
        })
    }

    fn nodes(
        &mut self,
        skeleton: &pb::ModelProto,
        declared: &BTreeMap<String, TensorType>,
    ) -> Result<(), Fault> {
        let Some(graph) = &skeleton.graph else {
            return Ok(());
        };
        let opset = skeleton
            .opset_import
            .iter()
            .find(|o| is_standard(Some(&o.domain)));
        let framework = tract_onnx::onnx();
        let opset = opset.map_or(0, |o| o.version);
        let context = |version| ParsingContext {
            onnx_operator_set_version: version,
            framework: &framework,
            model: skeleton,
            parent_graphs: vec![graph],
            model_dir: None,
            template: InferenceModel {
                symbols: self.model.symbols.clone(),
                ..InferenceModel::default()
            },
        };
        let (as_given, modern) = (context(opset), context(opset.max(resize::MODERN)));
        let mut added: Vec<(usize, &pb::NodeProto, Vec<String>)> = Vec::new();
        for node in &graph.node {
            let context = match node.op_type.as_str() {
                "Resize" => &modern,
                _ => &as_given,
            };
            let refused =
                refused(node, opset).filter(|_| matches!(self.weights, Weights::Values(_)));
            let built = match refused {
                Some(reason) => Err(Fault::new("tract does not support this node", reason)),
                None => build(&framework, context, node),
            };
            let (op, captured, is_known) = match built {
                Ok((op, captured)) => (op, captured, true),
                Err(fault) => {
                    let id = self.model.nodes().len();
                    let part = unsupported(node, fault.to_string());
                    self.unsupported.push((id, part));
                    let op = UnimplementedOp::new(node.output.len(), &node.op_type, "");
                    (op.into(), Vec::new(), false)
                }
            };
            // tract never learns what an unknown node computes: there the declared types are taken at their word.
            let id = self.add(node, op, (!is_known).then_some(declared))?;
            added.push((id, node, captured));
        }
        for (id, node, captured) in added {
            let operands = node
                .input
                .iter()
                .filter(|name| !name.is_empty())
                .chain(&captured);
            for (slot, name) in operands.enumerate() {
                let outlet = self.outlet(name, || describe(node))?;
                let connect = || self.model.add_edge(outlet, InletId::new(id, slot));
                guarded(|| describe(node), connect)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        node: &pb::NodeProto,
        op: Box<dyn InferenceOp>,
        declared: Option<&BTreeMap<String, TensorType>>,
    ) -> Result<usize, Fault> {
        let names: Vec<&String> = node.output.iter().filter(|name| !name.is_empty()).collect();
        let fact = |name: &&String| match declared.and_then(|d| d.get(name.as_str())) {
            Some(declared) => {
                let datum_type = to_datum_type(declared.dtype, self.halves);
                self.symbols.value_fact(datum_type, declared)
            }
            None => InferenceFact::default(),
        };
        let facts: TVec<InferenceFact> = names.iter().map(fact).collect();
        // tract derives the names of what it makes from this one, and they have to be unique.
        let unique = format!("{}#{}", label(node), self.model.nodes().len());
        let id = guarded(|| describe(node), || self.model.add_node(unique, op, facts))?;
        for (slot, name) in names.into_iter().enumerate() {
            let outlet = OutletId::new(id, slot);
            self.outlets.insert(name.clone(), outlet);
            self.values.push((name.clone(), outlet));
        }
        Ok(id)
    }
}
