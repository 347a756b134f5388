//! The output shape of `Attention`, for which tract infers only the rank.
//!
//! ```text
//! heads on an axis   q [b,h,n,d]   v [b,g,m,e]   y [b,h,n,e]
//! side by side       q [b,n,h*d]   k [b,m,g*d]   v [b,m,g*e]   y [b,n,h*e]
//! ```

use tract_onnx::prelude::{InferenceFact, TDim};
use tract_onnx::tract_hir::internal::{DimFact, Factoid, ShapeFactoid, ToDim};

/// tract's name of the operator.
const NAME: &str = "OnnxAttention";

/// Adds the sizes of the first output that follow from the operands'.
pub(crate) fn refine(operator: &str, inputs: &[InferenceFact], outputs: &mut [InferenceFact]) {
    let (NAME, [q, k, v, ..], [y, ..]) = (operator, inputs, outputs) else {
        return;
    };
    let Some(rank @ (3 | 4)) = q.shape.rank().concretize() else {
        return;
    };
    let Some((dims, last)) = sizes(q, rank as usize) else {
        return;
    };
    let channels = match (last.concretize(), size(k, 2), size(v, rank as usize - 1)) {
        (_, _, e) if rank == 4 => e,
        (Some(q), Some(k), Some(v)) if q == k => Some(v),
        (Some(q), Some(k), Some(v)) => shared(&q, &k, &v),
        _ => None,
    };
    let channels = channels.map_or_else(DimFact::default, DimFact::from);
    let found = ShapeFactoid::closed(dims.into_iter().chain([channels]).collect());
    // On a conflict, keep what is already known.
    if let Ok(shape) = y.shape.unify(&found) {
        y.shape = shape;
    }
}

/// All sizes but the last, and the last.
fn sizes(fact: &InferenceFact, rank: usize) -> Option<(Vec<DimFact>, DimFact)> {
    let mut dims = (0..rank)
        .map(|axis| fact.shape.dim(axis))
        .collect::<Option<Vec<DimFact>>>()?;
    let last = dims.pop()?;
    Some((dims, last))
}

fn size(fact: &InferenceFact, axis: usize) -> Option<TDim> {
    fact.shape.dim(axis)?.concretize()
}

/// Channels of the result where several heads of queries share one of keys and values.
fn shared(q: &TDim, k: &TDim, v: &TDim) -> Option<TDim> {
    let (q, k, v) = (q.as_i64()?, k.as_i64()?, v.as_i64()?);
    let product = v.checked_mul(q)?;
    (k > 0 && product % k == 0).then(|| (product / k).to_dim())
}
