//! Lowers a typed graph to the operators that tract runs.
//!
//! The same passes that tract's own driver runs, to the same fixed point. tract applies each of their patches in time
//! proportional to the graph, which makes deep graphs quadratic and worse; here it takes time proportional to the patch.

use std::collections::HashSet;
use std::sync::Arc;

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::optim::{Optimizer, OptimizerSession, TypedPass};

use super::fold::{FoldConstants, Folded};
use super::splice::Splice;

/// Lowers a graph. What is computed from constants is looked up in the first of `folded` that keeps it.
pub(crate) fn lower(model: &mut TypedModel, folded: Vec<Arc<Folded>>) -> TractResult<()> {
    let _proofs = model.symbols.proof_cache_session();
    let optimizer = Optimizer::codegen();
    let mut session = optimizer.session();
    let mut passes = optimizer.passes.clone();
    // The first one is tract's own propagation of constants.
    passes[0] = Box::new(FoldConstants::new(folded));
    model.compact()?;
    let mut splice = Splice::new(model);
    let mut seen = HashSet::new();
    loop {
        let mut changed = false;
        for pass in &mut passes {
            while apply_all(pass.as_mut(), &mut session, model, &mut splice, &mut seen)? {
                changed = true;
                model.compact()?;
            }
            model.compact()?;
        }
        if !changed {
            return Ok(());
        }
    }
}

/// Applies what a pass finds in one walk over the graph; returns whether there was anything.
fn apply_all(
    pass: &mut dyn TypedPass,
    session: &mut OptimizerSession<'_>,
    model: &mut TypedModel,
    splice: &mut Splice,
    seen: &mut HashSet<String>,
) -> TractResult<bool> {
    pass.reset()?;
    let mut changed = false;
    while let Some(mut patch) = pass.next(session, model)? {
        if let Some(once) = patch.dont_apply_twice.take()
            && !seen.insert(once)
        {
            continue;
        }
        splice.apply(patch, model)?;
        changed = true;
    }
    if pass.run_direct(model)? {
        splice.rename(model);
    }
    Ok(changed)
}
