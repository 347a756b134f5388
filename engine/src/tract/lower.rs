//! Lowers a typed graph to the operators that tract runs.
//!
//! The same passes that tract's own driver runs, to the same fixed point. tract applies each of their patches in time
//! proportional to the graph, which makes deep graphs quadratic and worse; here it takes time proportional to the patch.

use std::collections::HashSet;
use std::sync::Arc;

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::optim::{Optimizer, OptimizerSession, TypedPass};

use super::broadcast::repeat;
use super::choice::choose;
use super::deconvolution::convolve;
use super::fold::{FoldConstants, Folded};
use super::rule::Rule;
use super::splice::Splice;

/// Lowers a graph. What is computed from constants is looked up in the first of `folded` that keeps it.
pub(crate) fn lower(model: &mut TypedModel, folded: Vec<Arc<Folded>>) -> TractResult<()> {
    let _proofs = model.symbols.proof_cache_session();
    let optimizer = Optimizer::codegen();
    let mut session = optimizer.session();
    let mut passes = optimizer.passes.clone();
    // The first one is tract's own propagation of constants.
    passes[0] = Box::new(FoldConstants::new(folded));
    passes.insert(1, Box::new(Rule::new(convolve)));
    passes.insert(2, Box::new(Rule::new(repeat)));
    passes.insert(3, Box::new(Rule::new(choose)));
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

#[cfg(test)]
pub(super) mod testing {
    use bcosc_ir::Model;
    use bcosc_testing::weight;
    use tract_onnx::prelude::{
        InferenceModelExt, IntoTValue, RunOptions, Tensor, TypedModel, tvec,
    };
    use tract_onnx::tract_core::ops::konst::Const;
    use tract_onnx::tract_hir::internal::{Approximation, IntoArcTensor};

    use super::super::load::{Weights, load};
    use super::super::typed::into_typed;
    use super::*;

    /// A model as it is run.
    fn lowered(model: &Model) -> TypedModel {
        let loaded = load(model, Weights::Values(None)).unwrap().model;
        let mut typed = into_typed(loaded).unwrap();
        lower(&mut typed, vec![Arc::default()]).unwrap();
        typed
    }

    /// As tract's own driver prepares it.
    fn reference(model: &Model) -> TypedModel {
        let loaded = load(model, Weights::Values(None)).unwrap().model;
        let mut typed = loaded.into_typed().unwrap();
        typed.optimize().unwrap();
        typed
    }

    /// The operators that are run. tract merges equal constants, which are left out.
    pub fn operators(model: &Model) -> Vec<String> {
        names(&lowered(model))
    }

    /// Those of tract's own driver.
    pub fn own_operators(model: &Model) -> Vec<String> {
        names(&reference(model))
    }

    fn names(model: &TypedModel) -> Vec<String> {
        let nodes = model.nodes.iter().filter(|node| !node.op_is::<Const>());
        nodes.map(|node| node.op.name().into_owned()).collect()
    }

    /// Runs a model of one input, here and as tract's own driver prepares it.
    pub fn assert_same(model: &Model, dims: &[u64]) {
        let values = weight(4, dims).to_f32s().unwrap();
        let dims: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
        let x = Tensor::from_shape(&dims, &values).unwrap();
        let run = |model: TypedModel| {
            let plan = model.into_runnable_with_options(&RunOptions::default());
            let outputs = plan.unwrap().run(tvec![x.clone().into_tvalue()]);
            outputs.unwrap().remove(0).into_arc_tensor()
        };
        let (found, expected) = (run(lowered(model)), run(reference(model)));
        found.close_enough(&expected, Approximation::Close).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::Attribute;
    use bcosc_testing::{input, weight};

    use super::testing::{assert_same, operators, own_operators};

    /// tract's own driver is the reference.
    #[test]
    fn lowered_graphs_compute_what_tracts_own_do() {
        let mut builder = input(13, "2,4,8,8")
            .param("gamma", weight(1, &[4]))
            .param("beta", weight(2, &[4]))
            .param("head", weight(3, &[4, 5]));
        let mut value = "x".to_owned();
        for layer in 0..6 {
            let name = |part: &str| format!("{part}{layer}");
            let kernel = weight(10 + layer, &[4, 4, 3, 3]);
            builder = builder
                .param(&name("w"), kernel)
                .op(
                    "Conv",
                    &[&value, &name("w")],
                    &name("conv"),
                    [Attribute::ints("pads", &[1, 1, 1, 1])],
                )
                .op(
                    "InstanceNormalization",
                    &[&name("conv"), "gamma", "beta"],
                    &name("norm"),
                    [],
                )
                .op("Relu", &[&name("norm")], &name("relu"), [])
                .op("Add", &[&value, &name("relu")], &name("sum"), []);
            value = name("sum");
        }
        let model = builder
            .op("GlobalAveragePool", &[&value], "pool", [])
            .op("Flatten", &["pool"], "flat", [])
            .op("MatMul", &["flat", "head"], "y", [])
            .output("y")
            .finish()
            .unwrap();
        assert_eq!(operators(&model), own_operators(&model));
        assert_same(&model, &[2, 4, 8, 8]);
    }
}
