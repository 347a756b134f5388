//! Rewrites of single nodes, as passes of tract.

use tract_onnx::prelude::{TractResult, TypedModel};
use tract_onnx::tract_core::optim::{OptimizerSession, TypedPass};
use tract_onnx::tract_hir::internal::{TypedModelPatch, TypedNode};

type Rewrite = fn(&TypedModel, &TypedNode) -> TractResult<Option<TypedModelPatch>>;

/// A rewrite that is tried at each node in turn.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    rewrite: Rewrite,
    at: usize,
}

impl Rule {
    pub fn new(rewrite: Rewrite) -> Self {
        Rule { rewrite, at: 0 }
    }
}

impl TypedPass for Rule {
    fn reset(&mut self) -> TractResult<()> {
        self.at = 0;
        Ok(())
    }

    fn next(
        &mut self,
        _: &mut OptimizerSession<'_>,
        model: &TypedModel,
    ) -> TractResult<Option<TypedModelPatch>> {
        while let Some(node) = model.nodes.get(self.at) {
            self.at += 1;
            if let Some(patch) = (self.rewrite)(model, node)? {
                return Ok(Some(patch));
            }
        }
        Ok(None)
    }
}
