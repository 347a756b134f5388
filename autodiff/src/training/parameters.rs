//! Which constants of a model are trained.
//!
//! | constant | trained |
//! |---|---|
//! | weights and biases of layers, carried biases, scale and bias of norms, slope of `PRelu` | yes |
//! | other floating-point tensors that the output depends on: position embeddings, tokens, layer scales | yes |
//! | single numbers: epsilons, exponents, temperatures | no |
//! | statistics of norms | no; they are state of their own |
//! | ones and zeros of an instance norm that is part of a group norm | no |
//! | kernels of ones, as in the norms of B-cos layers | no |
//! | numbers that are combined with the image before the first layer: normalisation | no |
//! | masks, whose elements are 0 or a very negative number | no |
//! | numbers that are compared to make a mask, such as the windows of pixels | no |
//! | cosines and sines of rotary position embeddings | no |
//! | the logit bias, and zeros in place of a removed bias | no |

use std::collections::BTreeSet;

use bcosc_ir::ops::Trait;
use bcosc_ir::views::Gemm;
use bcosc_ir::{DataType, Graph, NodeId, Op, Tensor, Use, Value};
use bcosc_passes::analysis::carried;

use crate::activity::{dependents, needed};
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
    /// The bias of a layer, or one that the input carries.
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
    // A token that is repeated for every image depends on the number of images only.
    let reads = |node, _, _| reads_numbers(graph, node);
    let from_image = dependents(graph, &[image], &reads);
    let selection = Selection {
        graph,
        compared: compared(graph, &from_image),
        from_image,
        behind: dependents(graph, &weights, &reads),
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
    let mut trained: Vec<Parameter> = trained.collect();
    let turns = rotations(&trained);
    trained.retain(|parameter| !turns.contains(&parameter.value));
    trained
}

/// Pairs of cosines and sines, by which attention with rotary position embeddings turns its queries and keys.
fn rotations(parameters: &[Parameter]) -> BTreeSet<Value> {
    /// Of a sum of squares, in half precision too.
    const ROUNDING: f64 = 4e-3;
    let others = parameters.iter().filter(|p| p.role == Role::Other);
    let tables: Vec<(Value, Vec<u64>, Vec<f64>)> = others
        .map(|p| {
            (
                p.value,
                p.tensor.dims(),
                p.tensor.to_f64s().unwrap_or_default(),
            )
        })
        // Untrained tokens and scales are 0 and 1.
        .filter(|(_, _, x)| {
            x.iter().all(|x| x.abs() < 1.1) && x.iter().any(|x| x.abs() > 0.1 && x.abs() < 0.9)
        })
        .collect();
    let mut found = BTreeSet::new();
    for (i, (first, dims, a)) in tables.iter().enumerate() {
        for (second, _, b) in tables[..i].iter().filter(|(_, other, _)| other == dims) {
            let mut squares = a.iter().zip(b).map(|(a, b)| a * a + b * b);
            if squares.all(|square| (square - 1.0).abs() < ROUNDING) {
                found.extend([*first, *second]);
            }
        }
    }
    found
}

/// The operators that read a value.
fn uses(graph: &Graph, value: Value) -> impl Iterator<Item = (NodeId, &Op, u32)> {
    graph.uses(value).into_iter().filter_map(|used| match used {
        Use::Input { node, slot } => Some((node, graph.op(node)?, slot)),
        _ => None,
    })
}

/// What an operand of a standard operator is by its place; `None` where that says nothing.
pub(super) fn slot_role(op: &Op, slot: u32) -> Option<Role> {
    match (op.op_type(), slot) {
        ("Conv" | "ConvTranspose", 1) | ("Gemm", 0 | 1) => Some(Role::Weight),
        ("MatMul" | "Einsum", _) => Some(Role::Weight),
        ("Conv" | "ConvTranspose" | "Gemm", 2) => Some(Role::Bias),
        ("PRelu", 1) => Some(Role::Other),
        (_, 1 | 2) if op.has(Trait::Norm) => Some(Role::Norm),
        _ => None,
    }
}

/// The floating-point numbers that comparisons apart from the image are made of.
fn compared(graph: &Graph, from_image: &BTreeSet<Value>) -> BTreeSet<Value> {
    let is = |value: Value, kind: fn(DataType) -> bool| {
        let found = graph.value_type(value);
        found.is_some_and(|found| kind(found.dtype)) && !from_image.contains(&value)
    };
    let nodes = graph.ops().into_iter();
    let boolean = |dtype| dtype == DataType::Bool;
    let compares = nodes.filter(|&node| is(graph.output(node, 0), boolean));
    let operands: Vec<Value> = compares
        .flat_map(|node| graph.inputs_of(node))
        .flatten()
        .filter(|&value| is(value, DataType::is_float))
        .collect();
    let reads = |node, _, value| reads_numbers(graph, node) && is(value, DataType::is_float);
    needed(graph, &operands, &reads)
}

/// Whether a node reads more of its operands than their sizes.
pub(super) fn reads_numbers(graph: &Graph, node: NodeId) -> bool {
    !graph.op(node).is_some_and(|op| op.has(Trait::ShapeOnly))
}

struct Selection<'g> {
    graph: &'g Graph,
    compared: BTreeSet<Value>,
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
            let carried = carried::weight(self.graph, node) == Some(slot);
            let role = match slot_role(op, slot) {
                _ if carried => Role::Bias,
                Some(Role::Weight) if all(tensor, 1.0) => return None,
                Some(role) => role,
                None if self.compared.contains(&value) => return None,
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

#[cfg(test)]
mod tests {
    use bcosc_ir::{Attribute, ModelBuilder, Tensor};
    use bcosc_testing::{Layers, image, infer, model, weight};

    use super::*;

    fn names(builder: ModelBuilder) -> Vec<String> {
        let mut model = model(builder);
        infer(&mut model);
        let image = model.graph.inputs()[0];
        let found = parameters(&model.graph, image, false, &[]);
        found.into_iter().map(|parameter| parameter.name).collect()
    }

    /// Four tokens of five numbers for every image.
    fn tokens() -> ModelBuilder {
        image("batch,3,2,2")
            .conv("x", "y", &[5, 3, 1, 1], [])
            .param("sizes", Tensor::i64_vec(&[0, 5, 4]))
            .op("Reshape", &["y", "sizes"], "columns", [])
            .op(
                "Transpose",
                &["columns"],
                "tokens",
                [Attribute::ints("perm", &[0, 2, 1])],
            )
    }

    fn mean(builder: ModelBuilder, x: &str) -> ModelBuilder {
        let axes = Attribute::ints("axes", &[1]);
        builder
            .op("ReduceMean", &[x], "mean", [axes])
            .output("mean")
    }

    #[test]
    fn what_a_mask_is_computed_from_is_not_trained() {
        let windows = Tensor::f32s(&[1, 4], vec![0.0, 0.0, 1.0, 2.0]);
        let builder = tokens()
            .param("position", weight(1, &[4, 5]))
            .op("Add", &["tokens", "position"], "placed", [])
            .param("windows", windows)
            .op("Transpose", &["windows"], "turned", [])
            .op("Sub", &["windows", "turned"], "apart", [])
            .param("zero", Tensor::f32s(&[], vec![0.0]))
            .op("Equal", &["apart", "zero"], "together", [])
            .param("far", Tensor::f32s(&[], vec![-100.0]))
            .op("Where", &["together", "apart", "far"], "mask", [])
            .op("MatMul", &["mask", "placed"], "mixed", []);
        assert_eq!(names(mean(builder, "mixed")), ["y.w", "position"]);
    }

    #[test]
    fn a_token_repeated_for_every_image_is_trained() {
        let axis = || [Attribute::int("axis", 0)];
        let builder = tokens()
            .op("Shape", &["x"], "shape", [])
            .param("first", Tensor::i64_vec(&[0]))
            .op("Gather", &["shape", "first"], "images", axis())
            .param("rest", Tensor::i64_vec(&[1, 5]))
            .op("Concat", &["images", "rest"], "repeats", axis())
            .param("token", weight(2, &[1, 1, 5]))
            .op("Expand", &["token", "repeats"], "repeated", [])
            .op(
                "Concat",
                &["repeated", "tokens"],
                "all",
                [Attribute::int("axis", 1)],
            );
        assert_eq!(names(mean(builder, "all")), ["y.w", "token"]);
    }

    #[test]
    fn rotations_are_not_trained() {
        let angles: Vec<f32> = (0..20u8).map(|i| f32::from(i) / 3.0).collect();
        let table =
            |of: fn(f32) -> f32| Tensor::f32s(&[4, 5], angles.iter().map(|&x| of(x)).collect());
        let rotated = |second: Tensor| {
            let builder = tokens()
                .param("cos", table(f32::cos))
                .param("sin", second)
                .op("Mul", &["tokens", "cos"], "a", [])
                .op("Mul", &["tokens", "sin"], "b", [])
                .op("Add", &["a", "b"], "turned", []);
            names(mean(builder, "turned"))
        };
        assert_eq!(rotated(table(f32::sin)), ["y.w"]);
        assert_eq!(rotated(table(f32::tanh)), ["y.w", "cos", "sin"]);
    }
}
