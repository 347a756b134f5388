//! `Attention`: linear in its values, softmax held fixed.
//!
//! ```text
//! y = P v,  P = softmax (scale q k^T, masked)      s_v = P^T s_y, per head
//! ```

use crate::context::{Found, RuleContext};
use crate::recompute::attention::{Attended, Heads};

pub(crate) fn attention(cx: &mut RuleContext<'_>) -> Found {
    let (dy, v) = (cx.dy()?, cx.operand(2)?);
    let attended = Attended::of(cx)?;
    let probabilities = attended.shared(cx, attended.probabilities, attended.length);
    let mut dy = attended.queries.apart(cx, dy);
    if attended.is_shared() {
        let channels = Heads::of(cx, v, "kv_num_heads")?.channels;
        let channels = cx.ints(&[channels]);
        dy = attended.shared(cx, dy, channels);
    }
    let turned = cx.transpose(probabilities, &[0, 1, 3, 2]);
    let found = cx.op("MatMul", &[turned, dy]);
    Ok(vec![(2, attended.keys.together(cx, found))])
}
