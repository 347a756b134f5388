//! A model in tract's memory, and how it is prepared for the shapes of its inputs.

use std::sync::Arc;

use bcosc_ir::Model;
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, OutletId, RunOptions, TVec, TractResult, TypedRunnableModel,
};
use tract_onnx::tract_hir::internal::Factoid;

use super::NAME;
use super::conditions::take_known_branches;
use super::fault::{Fault, guarded};
use super::fold::Folded;
use super::infer::{byte_len, infer, label};
use super::load::{Loaded, Weights, load};
use super::lower::lower;
use super::session::TractSession;
use super::shared::Shared;
use super::tensor::{Halves, to_datum_type};
use super::typed::into_typed;
use crate::{EngineError, InputShapes, Network, Port, Session, SessionOptions, ports};

/// Maximum size of a value.
const LARGEST_VALUE: u64 = 1 << 33;

/// How much may be computed ahead of running.
const LARGEST_FOLDED: u64 = 4 << 20;

/// A model's graph and weights in tract's memory.
#[derive(Clone, Debug)]
pub(crate) struct TractNetwork {
    loaded: Loaded,
    /// What sessions have computed from constants.
    folded: Vec<Arc<Folded>>,
}

impl TractNetwork {
    /// Copies the weights into tract's memory, apart from those that are there.
    pub fn load(model: &Model, shared: Option<&Arc<Shared>>) -> Result<Self, EngineError> {
        let mut loaded = load(model, Weights::Values(shared.map(Arc::as_ref)))?;
        let shared = shared.map(|shared| shared.folded.clone());
        let folded = shared.into_iter().chain([Arc::default()]).collect();
        match std::mem::take(&mut loaded.unsupported) {
            parts if parts.is_empty() => Ok(TractNetwork { loaded, folded }),
            parts => Err(EngineError::Unsupported(parts)),
        }
    }
}

impl Network for TractNetwork {
    fn inputs(&self) -> &[Port] {
        &self.loaded.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.loaded.outputs
    }

    /// Weights are shared, apart from those that tract lays out anew.
    fn session(
        &self,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        Box::new(self.clone()).into_session(shapes, options)
    }

    fn into_session(
        self: Box<Self>,
        shapes: &InputShapes,
        options: &SessionOptions,
    ) -> Result<Box<dyn Session>, EngineError> {
        let TractNetwork { loaded, folded } = *self;
        let Loaded {
            mut model,
            mut inputs,
            outputs,
            ..
        } = loaded;
        options.precision.require_single(NAME)?;
        ports::specialise(&mut inputs, shapes)?;
        for (port, outlet) in inputs.iter().zip(model.inputs.clone()) {
            set_shape(&mut model, port, outlet)?;
        }
        loop {
            let errors = infer(&mut model, LARGEST_FOLDED);
            // A branch that is not taken may make no sense for these shapes.
            let take = || take_known_branches(&mut model);
            if guarded(|| "taking branches".into(), take).map_err(Fault::preparing)? {
                continue;
            }
            match errors.into_values().next() {
                Some(fault) => return Err(fault.preparing()),
                None => break,
            }
        }
        check_sizes(&model)?;
        let plan = guarded(|| "preparing the graph".into(), || prepare(model, folded));
        let plan = plan.map_err(Fault::preparing)?;
        Ok(Box::new(TractSession::new(plan, inputs, outputs, options)))
    }
}

/// Tells tract the shape of an input.
fn set_shape(model: &mut InferenceModel, port: &Port, outlet: OutletId) -> Result<(), EngineError> {
    let untyped = || EngineError::UntypedInput(port.name.clone());
    let given = port.tensor_type.as_ref().ok_or_else(untyped)?;
    let dtype = to_datum_type(given.dtype, Halves::AsFloat).ok_or_else(untyped)?;
    let place = || format!("input `{}`", port.name);
    let sizes = given.known_shape().unwrap_or_default().into_iter();
    let sizes = sizes.map(usize::try_from);
    let sizes = sizes.collect::<Result<TVec<usize>, _>>();
    let sizes = sizes.map_err(|e| Fault::new(place(), e).preparing())?;
    let fact = InferenceFact::dt_shape(dtype, sizes.as_slice());
    guarded(place, || model.set_outlet_fact(outlet, fact)).map_err(Fault::preparing)
}

/// Rejects values that are too large, before tract allocates them.
fn check_sizes(model: &InferenceModel) -> Result<(), EngineError> {
    for node in model.nodes() {
        let facts = node.outputs.iter().map(|output| &output.fact);
        if let Some(fact) = facts.into_iter().find(|fact| is_too_large(fact)) {
            return Err(EngineError::TooLarge {
                node: label(&node.name).to_owned(),
                value: format!("{fact:?}"),
            });
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
fn prepare(
    model: InferenceModel,
    folded: Vec<Arc<Folded>>,
) -> TractResult<Arc<TypedRunnableModel>> {
    let mut typed = into_typed(model)?;
    lower(&mut typed, folded)?;
    typed.into_runnable_with_options(&RunOptions::default())
}
