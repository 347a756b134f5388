//! The output shape of `ConvTranspose`, which tract does not infer if any size is dynamic.
//!
//! Each size of the result follows from the same size of x alone, as `a n + b`:
//!
//! ```text
//! n' = stride (n - 1) + output_padding + extent - pads, or stride n with auto_pad SAME, or output_shape
//! ```
//!
//! a and b follow from tract's own rule for two known sizes.

use tract_onnx::prelude::{InferenceFact, TDim};
use tract_onnx::tract_hir::internal::{
    DimFact, Factoid, GenericFactoid, InferenceOp, ShapeFactoid, TVec, ToDim, tvec,
};

/// tract's name of the operator.
const NAME: &str = "ConvTranspose";

/// A size of which no padding leaves nothing, and few enough that tract can count all elements.
const SIZE: i64 = 1 << 10;

/// Adds the sizes of the output that follow from those of x which are known.
pub(crate) fn refine(
    op: &mut dyn InferenceOp,
    inputs: &[InferenceFact],
    outputs: &mut [InferenceFact],
) {
    let (NAME, [x, w, ..], [y]) = (op.name().as_ref(), inputs, outputs) else {
        return;
    };
    if y.shape.concretize().is_some() {
        return;
    }
    let Some(shape) = shape(op, inputs, x, w) else {
        return;
    };
    // On a conflict, keep what is already known.
    if let Ok(shape) = y.shape.unify(&shape) {
        y.shape = shape;
    }
}

fn shape(
    op: &mut dyn InferenceOp,
    inputs: &[InferenceFact],
    x: &InferenceFact,
    w: &InferenceFact,
) -> Option<ShapeFactoid> {
    let rank = x.shape.rank().concretize()? as usize;
    let channels = w.shape.dim(0)?.concretize()?;
    let mut sizes = |size: i64| {
        let mut dims: TVec<TDim> = tvec![size.to_dim(); rank];
        *dims.get_mut(1)? = channels.clone();
        let mut known = inputs.to_vec();
        known[0].shape = ShapeFactoid::from(dims);
        known[0].value = GenericFactoid::Any;
        let open = InferenceFact::default();
        let found = op.infer_facts(known.iter().collect(), tvec![&open], tvec![]);
        let (_, outputs, _) = found.ok()?;
        let dims = outputs.first()?.shape.concretize()?;
        dims.iter()
            .map(|dim| dim.as_i64())
            .collect::<Option<Vec<i64>>>()
    };
    let (at, next) = (sizes(SIZE)?, sizes(SIZE + 1)?);
    let mut dims: TVec<DimFact> = tvec![x.shape.dim(0)?, DimFact::from(at.get(1)?.to_dim())];
    for axis in 2..rank {
        let (at, next) = (*at.get(axis)?, *next.get(axis)?);
        let slope = next - at;
        let size = x.shape.dim(axis)?.concretize();
        let size = size.map(|size| size * slope + (at - slope * SIZE));
        dims.push(size.map_or_else(DimFact::default, DimFact::from));
    }
    Some(ShapeFactoid::closed(dims))
}
