//! Types and sizes of all values of a graph, for inputs of given shapes.
//!
//! Inference does not know the operators of the domain `bcosc`. Their types are in the graph, in terms of the same
//! symbols as those of the values before them, so they are found in two rounds: the first, without them, says what the
//! symbols are; in the second they are inputs of known sizes.

use std::collections::BTreeMap;

use bcosc_engine::{EngineError, InputShapes, default_interpreter};
use bcosc_ir::{
    DataType, Dim, Facts, Interpreter, Model, Operand, Patch, Tensor, TensorType, Value,
};
use bcosc_passes::dialect::DOMAIN;

/// Constants up to so many bytes are evaluated ahead: sizes, axes and indices.
const LARGEST_CONSTANT: u64 = 1 << 20;

/// What is known of a graph's values.
#[derive(Debug, Default)]
pub struct Inferred {
    /// Element types and sizes.
    pub types: BTreeMap<Value, (DataType, Vec<u64>)>,
    /// Values that do not depend on inputs, initializers aside.
    pub constants: BTreeMap<Value, Tensor>,
}

/// Infers the types of all values.
///
/// # Errors
/// If an input has no shape, or the graph cannot be loaded.
pub fn infer(model: &Model, shapes: &InputShapes) -> Result<Inferred, EngineError> {
    let mut fixed = model.clone();
    for input in model.graph.inputs() {
        let name = model.graph.value_name(input).to_owned();
        let untyped = || EngineError::UntypedInput(name.clone());
        let dtype = model.graph.value_type(input).ok_or_else(untyped)?.dtype;
        let given = shapes
            .get(&name)
            .ok_or_else(|| EngineError::MissingInput(name.clone()))?;
        fixed
            .graph
            .retype_input(input, TensorType::fixed(dtype, given));
    }
    let markers: Vec<Value> = model
        .graph
        .ops()
        .into_iter()
        .filter(|&node| model.graph.op(node).is_some_and(|op| op.domain() == DOMAIN))
        .map(|node| model.graph.output(node, 0))
        .collect();
    let mut facts = facts(&fixed)?;
    if !markers.is_empty() {
        let symbols = symbols(model, &facts);
        let known = markers
            .into_iter()
            .filter_map(|marker| Some((marker, specialised(model, marker, &symbols)?)));
        replaced(&mut fixed, known.collect()).map_err(|error| EngineError::Load {
            place: "gradients of convolutions".to_owned(),
            reason: error.to_string(),
        })?;
        facts = self::facts(&fixed)?;
    }
    Ok(named(model, facts))
}

fn facts(model: &Model) -> Result<Facts, EngineError> {
    let facts = default_interpreter().facts(model, LARGEST_CONSTANT);
    facts.map_err(|error| EngineError::Load {
        place: "types of values".to_owned(),
        reason: error.to_string(),
    })
}

/// The size that each symbol has.
fn symbols(model: &Model, facts: &Facts) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for node in model.graph.nodes() {
        for slot in 0..model.graph.output_count(node) {
            let value = model.graph.output(node, slot);
            let open = model.graph.value_type(value).and_then(|t| t.shape);
            let known = facts.types.get(model.graph.value_name(value));
            let known = known.and_then(|t| t.known_shape());
            let pairs = open.into_iter().flatten().zip(known.into_iter().flatten());
            for (dim, size) in pairs {
                if let Dim::Symbol(symbol) = dim {
                    found.entry(symbol).or_insert(size);
                }
            }
        }
    }
    found
}

/// The type of a value with sizes in the place of symbols.
fn specialised(model: &Model, value: Value, symbols: &BTreeMap<String, u64>) -> Option<TensorType> {
    let TensorType { dtype, shape } = model.graph.value_type(value)?;
    let sizes = shape?.into_iter().map(|dim| match dim {
        Dim::Known(size) => Some(size),
        Dim::Symbol(symbol) => symbols.get(&symbol).copied(),
        Dim::Unknown => None,
    });
    Some(TensorType::fixed(
        dtype,
        &sizes.collect::<Option<Vec<_>>>()?,
    ))
}

/// Puts inputs of the same names in the place of operators. One patch for all: each takes time in proportion to the graph.
fn replaced(
    model: &mut Model,
    known: Vec<(Value, TensorType)>,
) -> Result<(), bcosc_ir::PatchError> {
    let Some((first, _)) = known.first() else {
        return Ok(());
    };
    let mut patch = Patch::at(first.node);
    for (value, found) in known {
        let name = model.graph.value_name(value).to_owned();
        let input = model.graph.add_input(&format!("{name}.known"), found);
        patch.replace(value, Operand::Old(input));
    }
    model.graph.apply(patch)?;
    Ok(())
}

/// Facts by value. What stands in for a marker has another name.
fn named(model: &Model, facts: Facts) -> Inferred {
    let mut inferred = Inferred::default();
    for node in model.graph.nodes() {
        for slot in 0..model.graph.output_count(node) {
            let value = model.graph.output(node, slot);
            let name = model.graph.value_name(value);
            let known = format!("{name}.known");
            let found = facts.types.get(name).or_else(|| facts.types.get(&known));
            if let Some((dtype, dims)) = found.and_then(|t| Some((t.dtype, t.known_shape()?))) {
                inferred.types.insert(value, (dtype, dims));
            }
            if let Some(constant) = facts.constants.get(name) {
                inferred.constants.insert(value, constant.clone());
            }
        }
    }
    inferred
}
