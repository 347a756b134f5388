//! Which constants of a model are trained.
//!
//! | constant | trained |
//! |---|---|
//! | weights and biases of layers, scale and bias of norms, slope of `PRelu` | yes |
//! | other floating-point tensors that the output depends on: position embeddings, tokens, layer scales | yes |
//! | single numbers: epsilons, exponents, temperatures | no |
//! | statistics of norms | no; they are state of their own |
//! | ones and zeros of an instance norm that is part of a group norm | no |
//! | kernels of ones, as in the norms of B-cos layers | no |
//! | numbers that are combined with the image before the first layer: normalisation | no |
//! | masks, whose elements are 0 or a very negative number | no |
//! | the logit bias, and zeros in place of a removed bias | no |

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Gemm;
use bcosc_ir::{Graph, NodeId, Op, Tensor, Use, Value};

use crate::activity::dependents;
use crate::explanation::logit_bias_value;

/// A constant that is trained.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its value in the graph.
    pub value: Value,
    /// Its name in the model.
    pub name: String,
    /// What it does there.
    pub role: Role,
    /// The axis along which its units lie; see [`super::Clip::Adaptive`].
    pub unit_axis: usize,
    /// Its elements.
    pub tensor: Tensor,
}

/// What a parameter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The weight of a layer.
    Weight,
    /// Scale or bias of a norm.
    Norm,
    /// The bias of a layer.
    Bias,
    /// B - 1 of a B-cos layer.
    Exponent,
    /// Anything else, such as a position embedding.
    Other,
}

impl Role {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Role::Weight => "weight",
            Role::Norm => "norm",
            Role::Bias => "bias",
            Role::Exponent => "exponent",
            Role::Other => "other",
        }
    }
}

/// Elements below this are a mask's.
const MASKED: f64 = -50.0;

/// The parameters of a graph, in its order. `image` is the input that layers see; `biases_removed` says that zeros
/// in place of a norm's bias stay zeros.
/// `exponents` are trained too.
pub(super) fn parameters(
    graph: &Graph,
    image: Value,
    biases_removed: bool,
    exponents: &[Value],
) -> Vec<Parameter> {
    let constants: Vec<(Value, Tensor)> = graph
        .nodes()
        .into_iter()
        .filter(|&node| graph.op(node).is_none_or(|op| op.is("Constant")))
        .map(|node| Value { node, slot: 0 })
        .filter_map(|value| Some((value, graph.constant(value)?)))
        .filter(|(_, tensor)| tensor.dtype().is_float() && !tensor.is_empty())
        .collect();
    let weights: Vec<Value> = constants
        .iter()
        .filter(|(value, tensor)| {
            let found =
                uses(graph, *value).any(|(_, op, slot)| slot_role(op, slot) == Some(Role::Weight));
            found && !all(tensor, 1.0)
        })
        .map(|(value, _)| *value)
        .collect();
    let selection = Selection {
        graph,
        from_image: dependents(graph, &[image], &|_, _, _| true),
        behind: dependents(graph, &weights, &|_, _, _| true),
        logit_bias: logit_bias_value(graph),
        biases_removed,
    };
    let trained = constants.into_iter().filter_map(|(value, tensor)| {
        let (role, unit_axis) = match exponents.contains(&value) {
            true => (Role::Exponent, 0),
            false => selection.role(value, &tensor)?,
        };
        Some(Parameter {
            value,
            name: graph.value_name(value).to_owned(),
            role,
            unit_axis,
            tensor,
        })
    });
    trained.collect()
}

/// The operators that read a value.
fn uses(graph: &Graph, value: Value) -> impl Iterator<Item = (NodeId, &Op, u32)> {
    graph.uses(value).into_iter().filter_map(|used| match used {
        Use::Input { node, slot } => Some((node, graph.op(node)?, slot)),
        _ => None,
    })
}

/// What an operand of a standard operator is by its place; `None` where that says nothing.
fn slot_role(op: &Op, slot: u32) -> Option<Role> {
    match (op.op_type(), slot) {
        ("Conv" | "ConvTranspose", 1) | ("Gemm", 0 | 1) => Some(Role::Weight),
        ("MatMul" | "Einsum", _) => Some(Role::Weight),
        ("Conv" | "ConvTranspose" | "Gemm", 2) => Some(Role::Bias),
        ("PRelu", 1) => Some(Role::Other),
        (_, 1 | 2) if op.has(Trait::Norm) => Some(Role::Norm),
        _ => None,
    }
}

struct Selection<'g> {
    graph: &'g Graph,
    from_image: BTreeSet<Value>,
    behind: BTreeSet<Value>,
    logit_bias: Option<Value>,
    biases_removed: bool,
}

impl Selection<'_> {
    /// What a constant does, and the axis of its units; `None` if it is not trained.
    fn role(&self, value: Value, tensor: &Tensor) -> Option<(Role, usize)> {
        if Some(value) == self.logit_bias {
            return None;
        }
        let mut found = None;
        for (node, op, slot) in uses(self.graph, value) {
            let statistics = op.is("BatchNormalization") && slot >= 3;
            let removed = op.has(Trait::Norm) && slot == 2 && self.is_removed(tensor);
            if statistics || removed || is_filler(op, slot, tensor) {
                return None;
            }
            let role = match slot_role(op, slot) {
                Some(Role::Weight) if all(tensor, 1.0) => return None,
                Some(role) => role,
                None if self.is_trained(node, tensor) => Role::Other,
                None => continue,
            };
            let axis = unit_axis(self.graph, node, op, slot, tensor);
            found = found.or(Some((role, axis)));
        }
        found
    }

    fn is_removed(&self, bias: &Tensor) -> bool {
        self.biases_removed && all(bias, 0.0)
    }

    /// Whether a constant that is no operand of a layer or a norm is trained where a node reads it.
    fn is_trained(&self, node: NodeId, tensor: &Tensor) -> bool {
        if tensor.len() < 2 || is_mask(tensor) {
            return false;
        }
        let reads = self.graph.inputs_of(node).into_iter().flatten();
        let (mut image, mut layers) = (false, false);
        for value in reads {
            image |= self.from_image.contains(&value);
            layers |= self.behind.contains(&value);
        }
        layers || !image
    }
}

/// The axis of a layer's outputs in an operand.
fn unit_axis(graph: &Graph, node: NodeId, op: &Op, slot: u32, tensor: &Tensor) -> usize {
    let rank = tensor.dims().len();
    match op.op_type() {
        "ConvTranspose" if slot == 1 => 1,
        "Gemm" if slot < 2 => {
            let transposed = Gemm::of(graph, node).map(|view| match slot {
                0 => view.trans_a,
                _ => view.trans_b,
            });
            let columns = (slot == 1) != transposed.unwrap_or(false);
            usize::from(columns)
        }
        "MatMul" if slot == 1 => rank.saturating_sub(1),
        "MatMul" => rank.saturating_sub(2),
        _ => 0,
    }
}

/// Whether an operand is there only because the operator requires it: exporters write a group norm as an instance norm
/// that neither scales nor shifts.
fn is_filler(op: &Op, slot: u32, tensor: &Tensor) -> bool {
    let neutral = if slot == 1 { 1.0 } else { 0.0 };
    op.is("InstanceNormalization") && slot >= 1 && all(tensor, neutral)
}

fn all(tensor: &Tensor, x: f64) -> bool {
    let elements = tensor.to_f64s().unwrap_or_default();
    !elements.is_empty() && elements.iter().all(|&element| element == x)
}

fn is_mask(tensor: &Tensor) -> bool {
    let elements = tensor.to_f64s().unwrap_or_default();
    let masked = |x: f64| x == 0.0 || x < MASKED;
    elements.iter().all(|&x| masked(x)) && elements.iter().any(|&x| x < MASKED)
}
