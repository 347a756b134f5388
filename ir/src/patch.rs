//! Changes to a graph: described by rules, applied in one place.
//!
//! A rule builds a [`Patch`] against the graph as it is; [`Graph::apply`] makes all of it true at
//! once. New operators may read the very values they replace: a replacement moves only the uses
//! that the graph had before.

use std::collections::BTreeSet;

use crate::graph::{Edge, Port};
use crate::node::Output;
use crate::{
    Attribute, Graph, Node, NodeId, Op, Parameter, ParameterData, Tensor, TensorType, Use, Value,
};

/// Key of the node metadata that names the node of the original model a new node came from.
pub const ORIGIN: &str = "bcosc.origin";

/// Something a new operator can read: a value of the graph or one of the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A value that the graph has.
    Old(Value),
    /// Output `slot` of the patch's own node `node`.
    New {
        /// Index of the node in the patch.
        node: usize,
        /// Which of its outputs.
        slot: u32,
    },
}

impl From<Value> for Operand {
    fn from(value: Value) -> Self {
        Operand::Old(value)
    }
}

/// A patch that does not fit the graph: a defect of the rule that made it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// It speaks of a node that is not there any more.
    #[error("the patch at {anchor} refers to a node that was removed")]
    StaleNode {
        /// Where the patch applies.
        anchor: String,
    },
    /// The new value has another type than the one it replaces.
    #[error("the patch at {anchor} replaces \"{value}\" ({old}) by a {new}")]
    TypeChanged {
        /// Where the patch applies.
        anchor: String,
        /// The replaced value.
        value: String,
        /// Its type.
        old: String,
        /// The type of the replacement.
        new: String,
    },
    /// The graph would wait for itself.
    #[error("the patch at {anchor} closes a cycle")]
    Cycle {
        /// Where the patch applies.
        anchor: String,
    },
}

#[derive(Debug)]
struct NewNode {
    node: Node,
    inputs: Vec<Option<Operand>>,
    outputs: u32,
    hint: String,
    types: Vec<Option<TensorType>>,
}

#[derive(Debug)]
enum Edit {
    Replace {
        old: Value,
        new: Operand,
        retype: bool,
    },
    SetInput {
        node: NodeId,
        slot: u32,
        new: Option<Operand>,
    },
    SetAttribute {
        node: NodeId,
        attribute: Attribute,
    },
    Unset {
        node: NodeId,
        attribute: String,
    },
}

/// A set of changes that belong together.
#[derive(Debug)]
pub struct Patch {
    anchor: NodeId,
    nodes: Vec<NewNode>,
    edits: Vec<Edit>,
    kept: Vec<usize>,
}

impl Patch {
    /// A patch whose new nodes take the anchor's place in the file and name it as their origin.
    pub fn at(anchor: NodeId) -> Self {
        Patch {
            anchor,
            nodes: Vec::new(),
            edits: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Adds a parameter; `hint` is the end of its name.
    pub fn parameter(&mut self, hint: &str, tensor: Tensor) -> Operand {
        let types = vec![Some(tensor.tensor_type())];
        let parameter = Parameter {
            data: ParameterData::Dense(tensor),
            as_input: None,
        };
        let node = Node::Parameter(Box::new(parameter));
        self.push(NewNode {
            node,
            inputs: Vec::new(),
            outputs: 1,
            hint: hint.to_owned(),
            types,
        })
    }

    /// Adds an operator with one output.
    pub fn op(&mut self, op: Op, inputs: &[Operand]) -> Operand {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        self.multi_op(op, &inputs, 1)
    }

    /// Adds an operator with `outputs` outputs, whose inputs may be left out; returns its first output.
    pub fn multi_op(&mut self, mut op: Op, inputs: &[Option<Operand>], outputs: u32) -> Operand {
        op.arity = inputs.len() as u32;
        let hint = match op.name() {
            "" => op.op_type().to_ascii_lowercase(),
            name => name.to_owned(),
        };
        let types = vec![None; outputs as usize];
        let node = Node::Op(Box::new(op));
        self.push(NewNode {
            node,
            inputs: inputs.to_vec(),
            outputs,
            hint,
            types,
        })
    }

    /// Keeps a new node even though nothing uses it yet.
    pub fn keep(&mut self, operand: Operand) {
        if let Operand::New { node, .. } = operand {
            self.kept.push(node);
        }
    }

    /// States the type of a new value.
    pub fn typed(&mut self, operand: Operand, tensor_type: TensorType) {
        if let Operand::New { node, slot } = operand {
            self.nodes[node].types[slot as usize] = Some(tensor_type);
        }
    }

    /// Moves every use of a value, graph outputs included, to another of the same type.
    pub fn replace(&mut self, old: Value, new: impl Into<Operand>) {
        self.edits.push(Edit::Replace {
            old,
            new: new.into(),
            retype: false,
        });
    }

    /// Moves every use of a value to one whose type may differ.
    pub fn replace_retyped(&mut self, old: Value, new: impl Into<Operand>) {
        self.edits.push(Edit::Replace {
            old,
            new: new.into(),
            retype: true,
        });
    }

    /// Changes one operand of an operator; `None` leaves it out.
    pub fn set_input(&mut self, node: NodeId, slot: u32, new: Option<Operand>) {
        self.edits.push(Edit::SetInput { node, slot, new });
    }

    /// Sets an attribute of an operator.
    pub fn set_attribute(&mut self, node: NodeId, attribute: Attribute) {
        self.edits.push(Edit::SetAttribute { node, attribute });
    }

    /// Takes an attribute of an operator away.
    pub fn unset_attribute(&mut self, node: NodeId, attribute: &str) {
        self.edits.push(Edit::Unset {
            node,
            attribute: attribute.to_owned(),
        });
    }

    fn push(&mut self, node: NewNode) -> Operand {
        self.nodes.push(node);
        Operand::New {
            node: self.nodes.len() - 1,
            slot: 0,
        }
    }
}

impl Graph {
    /// Applies a patch and removes what it leaves unused. Returns the new nodes, in the patch's order;
    /// those that nothing uses are gone again. On error the graph is not usable any more.
    pub fn apply(&mut self, patch: Patch) -> Result<Vec<NodeId>, PatchError> {
        let anchor = if self.contains(patch.anchor) {
            self.label(patch.anchor)
        } else {
            String::new()
        };
        self.check_fresh(&patch, &anchor)?;
        let place = self.vertex(patch.anchor).place;
        let origin = self.origin_of(patch.anchor);
        let mut idle = BTreeSet::new();
        let added: Vec<NodeId> = patch
            .nodes
            .iter()
            .map(|new| self.add_new(new, place, &anchor, &origin))
            .collect();
        let resolve = |operand: Operand| match operand {
            Operand::Old(value) => value,
            Operand::New { node, slot } => Value {
                node: added[node],
                slot,
            },
        };
        for edit in patch.edits {
            match edit {
                Edit::Replace { old, new, retype } => {
                    let new = resolve(new);
                    if !retype {
                        self.check_types(old, new, &anchor)?;
                    }
                    self.move_uses(old, new);
                    idle.insert(old.node);
                }
                Edit::SetInput { node, slot, new } => {
                    idle.extend(self.input(node, slot).map(|old| old.node));
                    self.set_input(node, slot, new.map(resolve));
                }
                Edit::SetAttribute { node, attribute } => {
                    if let Node::Op(op) = &mut self.vertex_mut(node).node {
                        op.set(attribute);
                    }
                }
                Edit::Unset { node, attribute } => {
                    if let Node::Op(op) = &mut self.vertex_mut(node).node {
                        op.unset(&attribute);
                    }
                }
            }
        }
        for (new, &id) in patch.nodes.iter().zip(&added) {
            for (slot, operand) in new.inputs.iter().enumerate() {
                if let Some(operand) = operand {
                    self.connect(resolve(*operand), id, Port::Input(slot as u32));
                }
            }
        }
        let kept: Vec<NodeId> = patch.kept.iter().map(|&node| added[node]).collect();
        idle.extend(added.iter().copied().filter(|id| !kept.contains(id)));
        self.remove_idle(idle);
        if cfg!(debug_assertions) && self.nodes().len() != self.net.node_count() {
            return Err(PatchError::Cycle { anchor });
        }
        #[cfg(debug_assertions)]
        crate::check::assert_consistent(self);
        Ok(added)
    }

    /// Removes operators and parameters that nothing uses, and returns how many nodes went.
    pub fn remove_dead(&mut self) -> usize {
        let before = self.net.node_count();
        let all = self.unordered().collect();
        self.remove_idle(all);
        before - self.net.node_count()
    }

    fn check_fresh(&self, patch: &Patch, anchor: &str) -> Result<(), PatchError> {
        let operands = patch
            .nodes
            .iter()
            .flat_map(|n| n.inputs.iter().flatten().copied());
        let edited = patch.edits.iter().flat_map(|edit| match edit {
            Edit::Replace { old, new, .. } => vec![Operand::Old(*old), *new],
            Edit::SetInput { node, new, .. } => {
                let node = Operand::Old(Value {
                    node: *node,
                    slot: 0,
                });
                std::iter::once(node).chain(*new).collect()
            }
            Edit::SetAttribute { node, .. } | Edit::Unset { node, .. } => {
                vec![Operand::Old(Value {
                    node: *node,
                    slot: 0,
                })]
            }
        });
        let stale = |operand| matches!(operand, Operand::Old(value) if !self.contains(value.node));
        if !self.contains(patch.anchor) || operands.chain(edited).any(stale) {
            return Err(PatchError::StaleNode {
                anchor: anchor.to_owned(),
            });
        }
        Ok(())
    }

    fn check_types(&self, old: Value, new: Value, anchor: &str) -> Result<(), PatchError> {
        let (Some(a), Some(b)) = (self.value_type(old), self.value_type(new)) else {
            return Ok(());
        };
        let same_rank = a.rank().is_none() || b.rank().is_none() || a.rank() == b.rank();
        if a.dtype == b.dtype && same_rank {
            return Ok(());
        }
        Err(PatchError::TypeChanged {
            anchor: anchor.to_owned(),
            value: self.value_name(old).to_owned(),
            old: a.to_string(),
            new: b.to_string(),
        })
    }

    /// The original node that a node came from: itself unless a pass made it.
    fn origin_of(&self, id: NodeId) -> String {
        let made_from = self.op(id).and_then(|op| op.metadata(ORIGIN));
        made_from.map_or_else(|| self.label(id), str::to_owned)
    }

    fn add_new(&mut self, new: &NewNode, place: u32, anchor: &str, origin: &str) -> NodeId {
        let name = self.fresh_name(&format!("{anchor}.{}", new.hint));
        let mut node = new.node.clone();
        if let Node::Op(op) = &mut node {
            op.header.name = Some(name.clone());
            op.set_metadata(ORIGIN, origin);
        }
        let outputs = (0..new.outputs)
            .map(|slot| Output {
                name: if slot == 0 {
                    name.clone()
                } else {
                    self.fresh_name(&format!("{name}.{slot}"))
                },
                inferred: new.types[slot as usize].clone(),
                ..Output::default()
            })
            .collect();
        self.add_vertex(place, node, outputs)
    }

    fn move_uses(&mut self, old: Value, new: Value) {
        for usage in self.uses(old) {
            match usage {
                Use::Input { node, slot } => self.connect(new, node, Port::Input(slot)),
                Use::Capture { node, label } => self.connect(new, node, Port::Capture(label)),
                Use::Output(index) => self.move_output(index, old, new),
            }
        }
        let source = &self.vertex(old.node).outputs[old.slot as usize];
        let (inferred, stands_for) = (source.inferred.clone(), source.stands_for.clone());
        let stands_for = stands_for.or_else(|| {
            self.is_original(old)
                .then(|| self.value_name(old).to_owned())
        });
        let target = &mut self.vertex_mut(new.node).outputs[new.slot as usize];
        target.inferred = target.inferred.take().or(inferred);
        target.stands_for = target.stands_for.take().or(stands_for);
    }

    /// Whether the value came with the model.
    fn is_original(&self, value: Value) -> bool {
        match self.node(value.node) {
            Node::Op(op) => op.metadata(ORIGIN).is_none(),
            _ => true,
        }
    }

    /// Outputs of the graph keep their names: the new value takes the name over where it is free to.
    fn move_output(&mut self, index: usize, old: Value, new: Value) {
        let takes_over = matches!(self.node(new.node), Node::Op(_))
            && !self.outputs.iter().any(|o| o.value == new);
        let target = if takes_over {
            new
        } else {
            self.add_identity(new)
        };
        self.outputs[index].value = target;
        let free = self.fresh_name(&format!("{}.before", self.value_name(old)));
        let old_output = &mut self.vertex_mut(old.node).outputs[old.slot as usize];
        let name = std::mem::replace(&mut old_output.name, free);
        let declared = old_output.declared.take();
        let target_output = &mut self.vertex_mut(target.node).outputs[target.slot as usize];
        target_output.name = name;
        target_output.declared = declared;
    }

    fn add_identity(&mut self, of: Value) -> Value {
        let place = self.vertex(of.node).place;
        let mut op = Op::new("", "Identity");
        op.arity = 1;
        op.header.name = Some(self.fresh_name(&format!("{}.identity", self.value_name(of))));
        let node = self.add_vertex(place, Node::Op(Box::new(op)), vec![Output::default()]);
        self.connect(of, node, Port::Input(0));
        Value { node, slot: 0 }
    }

    fn set_input(&mut self, node: NodeId, slot: u32, new: Option<Value>) {
        match new {
            Some(value) => self.connect(value, node, Port::Input(slot)),
            None => self.disconnect(node, Port::Input(slot)),
        }
        let last_used = self.inputs_of_len(node, slot);
        if let Node::Op(op) = &mut self.vertex_mut(node).node {
            op.arity = last_used;
        }
    }

    /// Arity after a change at `slot`: grows to hold it, and drops empty slots at the end.
    fn inputs_of_len(&self, node: NodeId, slot: u32) -> u32 {
        let arity = self.op(node).map_or(0, |op| op.arity).max(slot + 1);
        (0..arity)
            .rev()
            .find(|&s| self.input(node, s).is_some())
            .map_or(0, |s| s + 1)
    }

    fn remove_idle(&mut self, mut idle: BTreeSet<NodeId>) {
        while let Some(id) = idle.pop_last() {
            if !self.contains(id) || self.is_needed(id) {
                continue;
            }
            idle.extend(self.inputs_of(id).into_iter().flatten().map(|v| v.node));
            idle.extend(self.captured_by(id).into_iter().map(|v| v.node));
            self.remove_vertex(id);
        }
    }

    fn is_needed(&self, id: NodeId) -> bool {
        let kept = match self.node(id) {
            Node::Input(_) => true,
            Node::Parameter(parameter) => parameter.as_input.is_some(),
            Node::Op(_) | Node::Capture(_) => false,
        };
        let used = self
            .net
            .edges_directed(id.index(), petgraph::Direction::Outgoing)
            .next()
            .is_some();
        kept || used || self.outputs.iter().any(|o| o.value.node == id)
    }

    /// Joins a value to a port that is known to be empty.
    pub(crate) fn join(&mut self, value: Value, to: NodeId, edge: Edge) {
        self.net.add_edge(value.node.index(), to.index(), edge);
    }
}
