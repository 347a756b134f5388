//! The exponent B of the B-cos layers of a written model, as an input or as parameters.
//!
//! ```text
//! z = y (|y| / n)                 B = 2, as it is written
//! z = y (|y| / n + 1e-6)^(B-1)    any other B; and both forms with B - 1 as a value of its own
//! ```
//!
//! Layers may differ in B. With the input b, a layer of exponent B_l in a model of exponent B has
//! `1 + (b - 1) (B_l - 1) / (B - 1)`: all are linear at b = 1, and as in the model at b = B.

use bcosc_ir::{DataType, Graph, Model, NodeId, Op, Operand, Patch, TensorType, Value};
use bcosc_passes::analysis::scalars::scalar;
use bcosc_passes::analysis::weights;
use bcosc_passes::bcos::layers::B;
use bcosc_passes::dialect::COSINE_EPSILON;
use bcosc_passes::{PassError, Reason};

/// The input with B.
pub const EXPONENT: &str = "b";

/// What decides on B while a model is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exponent {
    /// The model: B stays as it is.
    #[default]
    Fixed,
    /// The input `b`, a scalar, for the model: B can change over the steps, and layers with a B of their own follow.
    Input,
    /// Every layer learns its own B; B - 1 is a parameter.
    Learned,
}

/// A B-cos layer's scaling.
#[derive(Clone, Copy, Debug)]
struct Scaling {
    /// The product.
    node: NodeId,
    /// The output of the linear layer.
    y: Value,
    /// `|y| / n`.
    cosine: Value,
    /// B.
    b: f64,
}

impl Scaling {
    fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let factors = operands(graph, node, "Mul")?;
        let [first, second] = factors;
        [(first, second), (second, first)]
            .into_iter()
            .find_map(|(y, factor)| {
                let (cosine, b) = base(graph, factor)?;
                let [size, _] = operands(graph, cosine.node, "Div")?;
                let (of, op) = graph.producer(size)?;
                let is_cosine = op.is("Abs") && graph.input(of, 0) == Some(y);
                is_cosine.then_some(Scaling { node, y, cosine, b })
            })
    }
}

/// The operands of a node with two of them, if it is of this kind.
fn operands(graph: &Graph, node: NodeId, op_type: &str) -> Option<[Value; 2]> {
    graph.op(node).filter(|op| op.is(op_type))?;
    match graph.inputs_of(node)[..] {
        [Some(a), Some(b)] => Some([a, b]),
        _ => None,
    }
}

/// The cosine that a factor is a power of, and B.
fn base(graph: &Graph, factor: Value) -> Option<(Value, f64)> {
    if operands(graph, factor.node, "Div").is_some() {
        return Some((factor, 2.0));
    }
    let [sum, exponent] = operands(graph, factor.node, "Pow")?;
    let [cosine, epsilon] = operands(graph, sum.node, "Add")?;
    scalar(graph, epsilon)?;
    Some((cosine, scalar(graph, exponent)? + 1.0))
}

/// The scalings of a graph.
fn scalings(graph: &Graph) -> Vec<Scaling> {
    let ops = graph.ops().into_iter();
    ops.filter_map(|node| Scaling::of(graph, node)).collect()
}

/// Gives every layer a constant B - 1 of its own, and returns these constants.
///
/// # Errors
/// If the model has no B-cos layers.
pub(super) fn learn(model: &mut Model) -> Result<Vec<Value>, PassError> {
    let mut exponents = Vec::new();
    for scaling in found(model)? {
        let mut patch = Patch::at(scaling.node);
        let dtype = dtype(model, scaling.y);
        let less = weights::tensor(dtype, &[], &[scaling.b - 1.0]);
        let less = patch.parameter("exponent", less);
        replace(&mut patch, &scaling, less, dtype);
        let added = model.graph.apply(patch)?;
        exponents.extend(less.applied(&added));
    }
    Ok(exponents)
}

/// Makes B an input of the model.
///
/// # Errors
/// If the model has no B-cos layers, or has exponent 1 in spite of them.
pub(super) fn take(model: &mut Model) -> Result<(), PassError> {
    let found = found(model)?;
    let whole = whole(model, &found) - 1.0;
    if whole <= 0.0 {
        return Err(PassError::Model(Reason::NoGrowth));
    }
    let dtype = found.first().map_or(DataType::Float, |s| dtype(model, s.y));
    let b = model
        .graph
        .add_input(EXPONENT, TensorType::fixed(dtype, &[]));
    for scaling in found {
        let mut patch = Patch::at(scaling.node);
        let one = patch.parameter("one", weights::tensor(dtype, &[], &[1.0]));
        let mut less = patch.op(Op::new("", "Sub").named("exponent"), &[b.into(), one]);
        let share = (scaling.b - 1.0) / whole;
        if (share - 1.0).abs() > ROUNDING {
            let share = patch.parameter("share", weights::tensor(dtype, &[], &[share]));
            less = patch.op(Op::new("", "Mul").named("exponent"), &[less, share]);
        }
        replace(&mut patch, &scaling, less, dtype);
        model.graph.apply(patch)?;
    }
    Ok(())
}

/// Of B - 1 in single precision.
const ROUNDING: f64 = 1e-6;

/// B of the model: what it says, or else the largest of its layers.
fn whole(model: &Model, scalings: &[Scaling]) -> f64 {
    let said = model.metadata(B).and_then(|b| b.parse().ok());
    said.unwrap_or_else(|| scalings.iter().map(|s| s.b).fold(1.0, f64::max))
}

fn found(model: &Model) -> Result<Vec<Scaling>, PassError> {
    let found = scalings(&model.graph);
    match found.is_empty() {
        true => Err(PassError::Model(Reason::NoBcosLayers)),
        false => Ok(found),
    }
}

fn dtype(model: &Model, value: Value) -> DataType {
    let found = model.graph.value_type(value);
    found.map_or(DataType::Float, |found| found.dtype)
}

/// Raises a layer's cosine to B - 1.
fn replace(patch: &mut Patch, scaling: &Scaling, less: Operand, dtype: DataType) {
    let epsilon = weights::tensor(dtype, &[], &[COSINE_EPSILON]);
    let epsilon = patch.parameter("epsilon", epsilon);
    let cosine = patch.op(Op::new("", "Add"), &[scaling.cosine.into(), epsilon]);
    let factor = patch.op(Op::new("", "Pow").named("factor"), &[cosine, less]);
    let scaled = patch.op(
        Op::new("", "Mul").named("scaled"),
        &[scaling.y.into(), factor],
    );
    let old = Value {
        node: scaling.node,
        slot: 0,
    };
    patch.replace(old, scaled);
}
