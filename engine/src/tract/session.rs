//! Graphs made ready to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use bcosc_ir::{DataType, InterpreterError, Model, Tensor, Tensors};
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, TVec, Tensor as TractTensor,
    TractResult, TypedModel, TypedRunnableModel,
};
use tract_onnx::tract_hir::internal::{Factoid, IntoTValue};

use super::branches::take_known_branches;
use super::guard::guarded;
use super::infer::{byte_len, describe, infer};
use super::load::{Loaded, Port, Weights, load};
use super::tensor::{Halves, from_tract, to_datum_type, to_tract};

/// The shape of each input, by name.
pub type InputShapes = BTreeMap<String, Vec<u64>>;

/// A value larger than this is taken for a mistake in the model.
const LARGEST_VALUE: u64 = 1 << 33;

/// How much may be computed ahead of running.
const LARGEST_FOLDED: u64 = 4 << 20;

/// A model's graph and weights in tract's memory, for any input shapes.
#[derive(Clone, Debug)]
pub struct Network {
    loaded: Loaded,
}

impl Network {
    /// Copies the weights into tract's memory. An error names the nodes that tract cannot run.
    pub fn load(model: &Model) -> Result<Self, InterpreterError> {
        let loaded = load(model, Weights::Values)?;
        match loaded.holes.as_slice() {
            [] => Ok(Network { loaded }),
            holes => Err(InterpreterError(list(holes))),
        }
    }

    /// Prepares the network for inputs of these shapes; its weights are shared, apart from those
    /// that tract lays out anew.
    pub fn session(&self, shapes: &InputShapes) -> Result<Session, InterpreterError> {
        self.clone().into_session(shapes)
    }

    /// As [`Network::session`], giving the weights up to the one session.
    pub fn into_session(self, shapes: &InputShapes) -> Result<Session, InterpreterError> {
        let Loaded {
            mut model,
            inputs,
            outputs,
            half_outputs,
            ..
        } = self.loaded;
        if let Some(stranger) = shapes
            .keys()
            .find(|name| inputs.iter().all(|i| i.name != **name))
        {
            return Err(InterpreterError(format!(
                "the model has no input `{stranger}`"
            )));
        }
        for input in &inputs {
            specialise(&mut model, input, shapes)?;
        }
        loop {
            let errors = infer(&mut model, LARGEST_FOLDED);
            // A branch that is not taken may make no sense for these shapes.
            let take = || take_known_branches(&mut model);
            if guarded(|| "taking branches".into(), take)? {
                continue;
            }
            match errors.into_values().next() {
                Some(error) => return Err(error),
                None => break,
            }
        }
        check_sizes(&model)?;
        let plan = guarded(|| "preparing the graph".into(), || prepare(model))?;
        Ok(Session {
            plan,
            inputs,
            outputs,
            half_outputs,
        })
    }
}

fn specialise(
    model: &mut InferenceModel,
    input: &Port,
    shapes: &InputShapes,
) -> Result<(), InterpreterError> {
    let name = &input.name;
    let shape = shapes
        .get(name)
        .ok_or_else(|| InterpreterError(format!("input `{name}` is missing")))?;
    let declared = input.declared.as_ref();
    let dtype = declared
        .and_then(|d| to_datum_type(d.dtype, Halves::AsFloat))
        .ok_or_else(|| InterpreterError(format!("input `{name}` has no type that can be fed")))?;
    let expected = declared.and_then(|d| d.shape.as_ref());
    let fits = expected.is_none_or(|dims| {
        dims.len() == shape.len()
            && dims
                .iter()
                .zip(shape)
                .all(|(d, s)| d.known().is_none_or(|d| d == *s))
    });
    if !fits {
        let declared = declared.map(ToString::to_string).unwrap_or_default();
        return Err(InterpreterError(format!(
            "input `{name}` is declared {declared}, given {shape:?}"
        )));
    }
    let sizes = shape
        .iter()
        .map(|&s| usize::try_from(s))
        .collect::<Result<TVec<usize>, _>>();
    let sizes = sizes.map_err(|e| InterpreterError(format!("input `{name}`: {e}")))?;
    let fact = InferenceFact::dt_shape(dtype, sizes.as_slice());
    guarded(
        || format!("input `{name}`"),
        || model.set_outlet_fact(input.outlet, fact),
    )
}

/// Refuses values that cannot be meant, before tract allocates them.
fn check_sizes(model: &InferenceModel) -> Result<(), InterpreterError> {
    for node in model.nodes() {
        let facts = node.outputs.iter().map(|output| &output.fact);
        if let Some(fact) = facts.into_iter().find(|fact| is_too_large(fact)) {
            let node = describe(&node.name);
            return Err(InterpreterError(format!(
                "{node} computes {fact:?}, which is too large"
            )));
        }
    }
    Ok(())
}

fn is_too_large(fact: &InferenceFact) -> bool {
    let dims = fact.shape.concretize();
    let is_fixed = dims.is_some_and(|dims| dims.iter().all(|dim| dim.as_i64().is_some()));
    // A fixed size that is not known in bytes does not fit 64 bits.
    is_fixed
        && fact.datum_type.is_concrete()
        && byte_len(fact).is_none_or(|bytes| bytes > LARGEST_VALUE)
}

/// Types, lowers and orders the graph.
///
/// tract's declutter pass is left out: it takes longer than running the graph once, and it rewrites
/// the arithmetic that is to be compared.
fn prepare(model: InferenceModel) -> TractResult<Arc<TypedRunnableModel>> {
    let mut typed: TypedModel = model.into_typed()?;
    typed.optimize()?;
    typed.into_runnable()
}

/// A graph that is ready to run, for inputs of fixed shapes. It can be shared between threads.
#[derive(Clone, Debug)]
pub struct Session {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Port>,
    outputs: Vec<String>,
    half_outputs: BTreeMap<String, DataType>,
}

impl Session {
    /// Prepares a model for inputs of these shapes.
    pub fn new(model: &Model, shapes: &InputShapes) -> Result<Self, InterpreterError> {
        Network::load(model)?.into_session(shapes)
    }

    /// The names of the outputs, in the order of the graph.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Computes the outputs. What a model computes in half precision or bfloat16 is computed in
    /// single precision, and rounded where the output is declared so.
    pub fn run(&self, inputs: &Tensors) -> Result<Tensors, InterpreterError> {
        let outputs = self.run_wide(inputs)?.into_iter();
        outputs
            .map(|(name, tensor)| Ok((name.clone(), self.rounded(&name, tensor)?)))
            .collect()
    }

    /// As [`Session::run`], without rounding what was computed in single precision.
    pub fn run_wide(&self, inputs: &Tensors) -> Result<Tensors, InterpreterError> {
        let mut operands = TVec::new();
        for port in &self.inputs {
            operands.push(operand(port, inputs)?.into_tvalue());
        }
        let values = guarded(|| "running the graph".into(), || self.plan.run(operands))?;
        let named = self.outputs.iter().zip(values);
        named
            .map(|(name, value)| {
                let problem = || InterpreterError(format!("output `{name}` is not numeric"));
                Ok((name.clone(), from_tract(&value).ok_or_else(problem)?))
            })
            .collect()
    }

    fn rounded(&self, name: &str, tensor: Tensor) -> Result<Tensor, InterpreterError> {
        let Some(dtype) = self
            .half_outputs
            .get(name)
            .filter(|_| tensor.dtype() == DataType::Float)
        else {
            return Ok(tensor);
        };
        let elements = tensor
            .to_f64s()
            .map_err(|e| InterpreterError(e.to_string()))?;
        Ok(Tensor::floats(*dtype, &tensor.dims(), &elements).unwrap_or(tensor))
    }
}

fn operand(port: &Port, inputs: &Tensors) -> Result<TractTensor, InterpreterError> {
    let name = &port.name;
    let given = inputs
        .get(name)
        .ok_or_else(|| InterpreterError(format!("input `{name}` is missing")))?;
    let declared = port.declared.as_ref().map(|d| d.dtype);
    if declared.is_some_and(|declared| declared != given.dtype()) {
        let declared = declared.map(DataType::name).unwrap_or_default();
        return Err(InterpreterError(format!(
            "input `{name}` is declared {declared}, given {}",
            given.dtype()
        )));
    }
    to_tract(given, Halves::AsFloat).map_err(|e| InterpreterError(format!("input `{name}`: {e}")))
}

/// At most five of many.
fn list(problems: &[String]) -> String {
    let shown = problems
        .iter()
        .take(5)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    match problems.len().saturating_sub(5) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
