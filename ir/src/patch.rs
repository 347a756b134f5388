//! Changes to a graph: described by rules, applied in one place.
//!
//! A rule builds a [`Patch`] against the graph as it is; [`Graph::apply`] makes all of it true at
//! once. New operators may read the very values they replace: a replacement moves only the uses
//! that the graph had before.

mod apply;

use crate::{Attribute, Node, NodeId, Op, Parameter, ParameterData, Tensor, TensorType, Value};

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

impl Operand {
    /// The value that an operand is once its patch is applied: `added` is what [`Graph::apply`] returned.
    ///
    /// [`Graph::apply`]: crate::Graph::apply
    pub fn applied(self, added: &[NodeId]) -> Option<Value> {
        match self {
            Operand::Old(value) => Some(value),
            Operand::New { node, slot } => {
                let node = *added.get(node)?;
                Some(Value { node, slot })
            }
        }
    }
}

impl From<Value> for Operand {
    fn from(value: Value) -> Self {
        Operand::Old(value)
    }
}

/// A patch that does not fit the graph: a bug in the rule that made it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// It refers to a node or an output that does not exist.
    #[error("the patch at {anchor} refers to a removed node")]
    StaleNode {
        /// The anchor of the patch.
        anchor: String,
    },
    /// The new value has another type than the one it replaces.
    #[error("the patch at {anchor} replaces \"{value}\" ({old}) by a {new}")]
    TypeChanged {
        /// The anchor of the patch.
        anchor: String,
        /// The replaced value.
        value: String,
        /// Its type.
        old: String,
        /// The type of the replacement.
        new: String,
    },
    /// It changes an operand or attribute of a node that is not an operator.
    #[error("the patch at {anchor} changes {node}, which is not an operator")]
    NotAnOperator {
        /// The anchor of the patch.
        anchor: String,
        /// The changed node.
        node: String,
    },
    /// It replaces an output of the graph that is an input too.
    #[error(
        "the patch at {anchor} replaces the output \"{value}\", which is also an input and keeps its name"
    )]
    FixedName {
        /// The anchor of the patch.
        anchor: String,
        /// The output.
        value: String,
    },
    /// A new operator has a subgraph that captures values not available at the anchor.
    #[error(
        "the patch at {anchor} adds a subgraph that reads \"{value}\", which the node there does not pass on"
    )]
    UnknownCapture {
        /// The anchor of the patch.
        anchor: String,
        /// What the subgraph reads.
        value: String,
    },
    /// The graph would have a cycle.
    #[error("the patch at {anchor} creates a cycle")]
    Cycle {
        /// The anchor of the patch.
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
    Forget(Value),
    SetInput {
        node: NodeId,
        slot: u32,
        new: Option<Operand>,
    },
    SetAttribute {
        node: NodeId,
        attribute: Box<Attribute>,
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
    named: Vec<Named>,
}

/// A new value that is called after an old one.
#[derive(Debug)]
struct Named {
    new: Operand,
    old: Value,
    suffix: String,
    /// Whether the suffix is there even if the old name is free.
    always: bool,
}

impl Patch {
    /// A patch whose new nodes take the anchor's place in the file and name it as their origin.
    pub fn at(anchor: NodeId) -> Self {
        Patch {
            anchor,
            nodes: Vec::new(),
            edits: Vec::new(),
            kept: Vec::new(),
            named: Vec::new(),
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
    /// An operator with subgraphs must be a copy of the anchor's: they capture what those capture.
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

    /// Calls a new value after an old one: by its name if the patch leaves that unused, so that it is removed, and otherwise by
    /// its name with a suffix.
    pub fn name_after(&mut self, new: Operand, old: Value, suffix: &str) {
        let (suffix, always) = (suffix.to_owned(), false);
        self.named.push(Named {
            new,
            old,
            suffix,
            always,
        });
    }

    /// Calls a new value by the name of an old one with a suffix.
    pub fn name_with_suffix(&mut self, new: Operand, old: Value, suffix: &str) {
        let (suffix, always) = (suffix.to_owned(), true);
        self.named.push(Named {
            new,
            old,
            suffix,
            always,
        });
    }

    /// States the type of a new value.
    pub fn typed(&mut self, operand: Operand, tensor_type: TensorType) {
        if let Operand::New { node, slot } = operand {
            self.nodes[node].types[slot as usize] = Some(tensor_type);
        }
    }

    /// Moves every use of a value, graph outputs included, to another of the same type, which from now
    /// on stands for what the old one stood for (see [`Graph::stands_for`]).
    ///
    /// [`Graph::stands_for`]: crate::Graph::stands_for
    pub fn replace(&mut self, old: Value, new: impl Into<Operand>) {
        self.edits.push(Edit::Replace {
            old,
            new: new.into(),
            retype: false,
        });
    }

    /// Moves every use of a value to one whose type may differ. An output of the graph is declared
    /// anew, and the new value does not count as standing for the old one.
    pub fn replace_retyped(&mut self, old: Value, new: impl Into<Operand>) {
        self.edits.push(Edit::Replace {
            old,
            new: new.into(),
            retype: true,
        });
    }

    /// States that an old value becomes another quantity, one that the original does not have: it stands for
    /// nothing from here on. Edits count in order, so a value can forget what it was and then replace
    /// another one.
    pub fn forget(&mut self, value: Value) {
        self.edits.push(Edit::Forget(value));
    }

    /// Changes one operand of an operator; `None` leaves it out.
    pub fn set_input(&mut self, node: NodeId, slot: u32, new: Option<Operand>) {
        self.edits.push(Edit::SetInput { node, slot, new });
    }

    /// Sets an attribute of an operator.
    pub fn set_attribute(&mut self, node: NodeId, attribute: Attribute) {
        let attribute = Box::new(attribute);
        self.edits.push(Edit::SetAttribute { node, attribute });
    }

    /// Removes an attribute of an operator.
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
