//! A model in another one.

use std::collections::{BTreeMap, BTreeSet};

use bcosc_onnx::proto::FunctionProto;

use super::copy::Moved;
use super::names::Names;
use super::{SurgeryError, annotations, check_fits, check_values};
use crate::{Graph, Model, Node, NodeId, Op, Value};

impl Model {
    /// Puts another model into this one: its inputs become the values of this graph that they are bound to,
    /// as pairs of (input of the guest, value of this graph). Returns the values that the guest's outputs
    /// are now, in their order; an output that is an input is the value that input is bound to.
    ///
    /// What the guest's outputs do not need stays behind, and so does its metadata. Its weights are shared.
    /// Names that this graph has already are changed, those inside of subgraphs too;
    /// [provenance](Graph::stands_for) comes along. A parameter that is an input with a default value may
    /// be bound, and is a mere constant where it is not. The outputs of this graph stay: give it new ones
    /// with [`Graph::set_outputs`], or let a patch read what came.
    ///
    /// # Errors
    /// If an input that the guest needs is not bound, or bound to a value of another type; where the
    /// models use different versions of an operator set that the guest's operators come from; and where
    /// one operator means different local functions.
    pub fn splice(
        &mut self,
        guest: &Model,
        bindings: &[(Value, Value)],
    ) -> Result<Vec<Value>, SurgeryError> {
        let from = &guest.graph;
        let bound = self.bound(from, bindings)?;
        let outputs: Vec<Value> = from.outputs.iter().map(|output| output.value).collect();
        let mut nodes = from
            .cone(&outputs, |value| bound.contains_key(&value))
            .nodes;
        let is_input = |id: &&NodeId| matches!(from.node(**id), Node::Input(_));
        if let Some(input) = nodes.iter().find(is_input) {
            let input = from.label(*input);
            return Err(SurgeryError::Unbound { input });
        }
        let ops: Vec<&Op> = nodes.iter().filter_map(|&id| from.op(id)).collect();
        let imports = self.missing_imports(guest, &ops)?;
        let functions = self.missing_functions(guest)?;

        imports
            .iter()
            .for_each(|(domain, version)| self.set_opset(domain, *version));
        self.header.functions.extend(functions);
        self.set_ir_version(self.ir_version().max(guest.ir_version()));
        let into = &mut self.graph;
        let annotations = annotations::kept(from, &BTreeSet::new(), &mut nodes);
        let names = Names::reserve(&nodes, from, into);
        let places = into.net.node_weights().map(|vertex| vertex.place);
        let behind = places.max().unwrap_or(0);
        let mut moved = Moved {
            values: bound,
            ..Moved::default()
        };
        moved.copy(&nodes, from, into, |vertex| {
            names.apply(vertex);
            vertex.place = vertex.place.saturating_add(behind);
            if let Node::Parameter(parameter) = &mut vertex.node {
                parameter.as_input = None;
            }
        });
        moved.join(from, into);
        for mut annotation in annotations {
            names.annotation(&mut annotation);
            into.pinned.extend(annotations::constants(&annotation));
            into.frame.quantization_annotation.push(annotation);
        }
        #[cfg(debug_assertions)]
        crate::check::assert_consistent(into);
        Ok(outputs.iter().map(|value| moved.values[value]).collect())
    }

    fn bound(
        &self,
        guest: &Graph,
        bindings: &[(Value, Value)],
    ) -> Result<BTreeMap<Value, Value>, SurgeryError> {
        let inputs: Vec<Value> = bindings.iter().map(|&(input, _)| input).collect();
        check_values(guest, &inputs, "input")?;
        for (index, &(input, value)) in bindings.iter().enumerate() {
            check_values(&self.graph, &[value], "value").map_err(|_| SurgeryError::NoValue {
                what: "value",
                index,
            })?;
            let name = guest.value_name(input);
            if !guest.inputs.contains(&input.node) {
                let value = name.to_owned();
                return Err(SurgeryError::NotAnInput { value });
            }
            check_fits(name, guest.value_type(input), self.graph.value_type(value))?;
        }
        Ok(bindings.iter().copied().collect())
    }

    /// Operator sets that the guest's operators come from and this model does not import.
    fn missing_imports(
        &self,
        guest: &Model,
        ops: &[&Op],
    ) -> Result<Vec<(String, i64)>, SurgeryError> {
        let mut domains = BTreeSet::new();
        ops.iter()
            .for_each(|op| visit(op, &mut |op| _ = domains.insert(op.domain().to_owned())));
        let mut missing = Vec::new();
        for domain in domains {
            match (self.opset(&domain), guest.opset(&domain)) {
                (None, Some(version)) => missing.push((domain, version)),
                (Some(host), Some(guest)) if host != guest => {
                    return Err(SurgeryError::OpsetVersions {
                        domain,
                        host,
                        guest,
                    });
                }
                _ => (),
            }
        }
        Ok(missing)
    }

    /// Functions of the guest that this model has not.
    fn missing_functions(&self, guest: &Model) -> Result<Vec<FunctionProto>, SurgeryError> {
        let [ours, theirs] = [self, guest].map(|model| {
            let functions = model.functions().iter();
            functions
                .map(|f| (Key::of_function(f), f))
                .collect::<BTreeMap<_, _>>()
        });
        let [called_here, called_there] = [self, guest].map(|model| {
            let mut called = BTreeSet::new();
            let ops = model.graph.unordered().filter_map(|id| model.graph.op(id));
            ops.for_each(|op| visit(op, &mut |op| _ = called.insert(Key::of_op(op))));
            called
        });
        let mut missing = Vec::new();
        for key in ours.keys().chain(theirs.keys()) {
            let same = match (ours.get(key), theirs.get(key)) {
                (Some(one), Some(other)) => one == other,
                (Some(_), None) => !called_there.contains(key),
                (None, _) => !called_here.contains(key),
            };
            if !same {
                let function = key.to_string();
                return Err(SurgeryError::FunctionsDiffer { function });
            }
        }
        for (key, function) in theirs {
            if !ours.contains_key(&key) {
                missing.push(function.clone());
            }
        }
        Ok(missing)
    }
}

/// An operator and all those nested in it.
fn visit(op: &Op, see: &mut impl FnMut(&Op)) {
    see(op);
    for graph in op.subgraphs() {
        for inner in graph.unordered().filter_map(|id| graph.op(id)) {
            visit(inner, see);
        }
    }
}

/// What tells functions apart.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    domain: String,
    name: String,
    overload: String,
}

impl Key {
    fn of_function(function: &FunctionProto) -> Self {
        Key {
            domain: crate::model::canonical_domain(function.domain.as_deref()).to_owned(),
            name: function.name().to_owned(),
            overload: function.overload().to_owned(),
        }
    }

    fn of_op(op: &Op) -> Self {
        Key {
            domain: op.domain().to_owned(),
            name: op.op_type().to_owned(),
            overload: op.overload().to_owned(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.domain, self.name)?;
        match self.overload.as_str() {
            "" => Ok(()),
            overload => write!(f, ":{overload}"),
        }
    }
}
