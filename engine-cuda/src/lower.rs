//! From a graph to a program: each operator by its rule.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_engine::{EngineError, InputShapes, Precision, Unsupported};
use bcosc_ir::{Graph, Model, Node, NodeId, ParameterData, Tensor as Values, Value};

use crate::expr::{TensorId, Type};
use crate::infer::{Inferred, infer};
use crate::operators::{Reason, RuleContext, rule};
use crate::program::{Def, Program, Tensor};

/// The program of a model for inputs of these shapes. Shape arithmetic, and what no output needs, is left out. The precision
/// decides how images lie in memory.
///
/// # Errors
/// [`EngineError::Unsupported`] names all nodes that have no kernel.
pub fn lower(
    model: &Model,
    shapes: &InputShapes,
    precision: Precision,
) -> Result<Program, EngineError> {
    let inferred = infer(model, shapes)?;
    let mut lowering = Lowering {
        model,
        inferred: &inferred,
        precision,
        program: Program::default(),
        tensors: BTreeMap::new(),
        problems: Vec::new(),
    };
    lowering.inputs()?;
    let needed = needed(&model.graph, &inferred);
    for node in model.graph.nodes() {
        if needed.contains(&node) {
            lowering.node(node);
        }
    }
    let Lowering {
        mut program,
        tensors,
        problems,
        ..
    } = lowering;
    if !problems.is_empty() {
        return Err(EngineError::Unsupported(problems));
    }
    for output in model.graph.outputs() {
        let name = output.info.name.clone().unwrap_or_default();
        let found = tensors.get(&output.value).copied();
        let found = found.ok_or_else(|| EngineError::UnknownOutput(name.clone()))?;
        program.outputs.push((name, found));
    }
    Ok(program)
}

/// The nodes that outputs need, apart from those whose values are constants anyway.
fn needed(graph: &Graph, inferred: &Inferred) -> BTreeSet<NodeId> {
    let mut open: Vec<Value> = graph.outputs().iter().map(|output| output.value).collect();
    let mut found = BTreeSet::new();
    while let Some(value) = open.pop() {
        if !found.insert(value.node) || inferred.constants.contains_key(&value) {
            continue;
        }
        let shape_only = graph
            .op(value.node)
            .is_some_and(|op| op.is("Shape") || op.is("Size"));
        let inputs = graph.inputs_of(value.node).into_iter().flatten();
        open.extend(inputs.filter(|_| !shape_only));
        if shape_only {
            open.extend(graph.input(value.node, 0));
        }
    }
    found
}

struct Lowering<'a> {
    model: &'a Model,
    inferred: &'a Inferred,
    precision: Precision,
    program: Program,
    tensors: BTreeMap<Value, TensorId>,
    problems: Vec<Unsupported>,
}

impl Lowering<'_> {
    fn inputs(&mut self) -> Result<(), EngineError> {
        let graph = &self.model.graph;
        for value in graph.inputs() {
            let name = graph.value_name(value).to_owned();
            let found = self.inferred.types.get(&value);
            let (dtype, dims) = found.ok_or_else(|| EngineError::UntypedInput(name.clone()))?;
            let ty = Type::of(*dtype).ok_or(EngineError::DataType(*dtype))?;
            let dims = dims.clone();
            let tensor = Tensor {
                name: name.clone(),
                ty,
                dims,
                def: Def::Input,
            };
            let id = self.program.add(tensor);
            self.program.inputs.push((name, id));
            self.tensors.insert(value, id);
        }
        Ok(())
    }

    fn node(&mut self, node: NodeId) {
        match self.model.graph.node(node) {
            Node::Input(_) | Node::Capture(_) => {}
            Node::Parameter(parameter) => {
                let value = self.model.graph.output(node, 0);
                match &parameter.data {
                    ParameterData::Dense(tensor) => self.constant(value, tensor.clone()),
                    ParameterData::Sparse(_) => {
                        self.problem(node, &Reason::Form("a sparse constant"));
                    }
                }
            }
            Node::Op(_) => self.operator(node),
        }
    }

    fn constant(&mut self, value: Value, tensor: Values) {
        let name = self.model.graph.value_name(value).to_owned();
        match Type::of(tensor.dtype()) {
            Some(ty) => {
                let id = self.program.constant(&name, ty, tensor);
                self.tensors.insert(value, id);
            }
            None => self.problem(value.node, &Reason::Type(tensor.dtype())),
        }
    }

    fn problem(&mut self, node: NodeId, reason: &Reason) {
        let graph = &self.model.graph;
        self.problems.push(Unsupported {
            name: graph.label(node),
            op: graph.op(node).map(|op| op.kind()),
            reason: reason.to_string(),
        });
    }

    fn operator(&mut self, node: NodeId) {
        let graph = &self.model.graph;
        let values: Vec<Value> = (0..graph.output_count(node))
            .map(|slot| graph.output(node, slot))
            .collect();
        let known = |value: &Value| self.inferred.constants.get(value).cloned();
        let constants: Vec<(Value, Values)> = values
            .iter()
            .filter_map(|value| Some((*value, known(value)?)))
            .collect();
        let all = constants.len() == values.len();
        for (value, tensor) in constants {
            self.constant(value, tensor);
        }
        // What depends on an operator without a kernel is not reported as well.
        let fails = |value: Value| !self.tensors.contains_key(&value);
        let mut inputs = graph.inputs_of(node).into_iter().flatten();
        if all || (!self.problems.is_empty() && inputs.any(fails)) {
            return;
        }
        match self.rule(node, &values) {
            Ok(found) => {
                for (value, id) in values.into_iter().zip(found) {
                    if let Some(id) = id {
                        self.tensors.entry(value).or_insert(id);
                    }
                }
            }
            Err(reason) => self.problem(node, &reason),
        }
    }

    fn rule(&mut self, node: NodeId, values: &[Value]) -> Result<Vec<Option<TensorId>>, Reason> {
        let graph = &self.model.graph;
        let op = graph.op(node).ok_or(Reason::NoRule)?;
        let rule = rule(op.domain(), op.op_type()).ok_or(Reason::NoRule)?;
        let outputs = values
            .iter()
            .map(|value| self.inferred.types.get(value).cloned());
        let mut cx = RuleContext {
            graph,
            node,
            op,
            opset: self.model.opset("").unwrap_or(0),
            tensors: &self.tensors,
            outputs: outputs.collect(),
            name: values
                .first()
                .map_or(String::new(), |v| graph.value_name(*v).to_owned()),
            precision: self.precision,
            program: &mut self.program,
        };
        let found = rule(&mut cx)?;
        for (slot, value) in values.iter().enumerate() {
            let known = self.inferred.types.get(value);
            let made = found.get(slot).copied().flatten();
            if let (Some((_, dims)), Some(id)) = (known, made)
                && self.program.tensor(id).dims != *dims
            {
                return Err(Reason::Malformed(format!(
                    "output {slot} is {:?}, not {dims:?}",
                    self.program.tensor(id).dims
                )));
            }
        }
        Ok(found)
    }
}
