//! `LRN`: elements divided by a power of the sum of their neighbours' squares.
//!
//! ```text
//! y_i = x_i d_i^-beta     d_i = bias + alpha / size * sum of x_j^2, j in the window of i
//! s_j = s_y_j d_j^-beta - 2 alpha beta / size * x_j * sum of s_y_i y_i / d_i, j in the window of i
//! ```
//!
//! Sums over a window are an average pool along the channels; that of the transposed window has its borders
//! swapped.

use bcosc_ir::{Attribute, Operand};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn lrn(cx: &mut RuleContext<'_>) -> Found {
    let [alpha, beta, bias] = ["alpha", "beta", "bias"].map(|name| cx.attribute::<f32>(name));
    let [alpha, beta, bias] = [alpha?, beta?, bias?].map(f64::from);
    let size: i64 = cx.attribute("size")?;
    if size < 1 {
        return Err(Reason::Malformed);
    }
    let before = (size - 1) / 2;
    let sides = [before, size - 1 - before];
    let (dy, x, y) = (cx.dy()?, cx.operand(0)?, cx.y());
    let square = cx.mul(x.into(), x.into());
    let mean = averaged(cx, square, size, sides);
    let weighted = cx.times(mean, alpha, x);
    let bias = cx.number(x, bias);
    let d = cx.add(weighted, bias);
    let power = cx.number(x, -beta);
    let gate = cx.op("Pow", &[d, power]);
    let own = cx.mul(dy, gate);
    let product = cx.mul(dy, y.into());
    let ratio = cx.div(product, d);
    let mean = averaged(cx, ratio, size, [sides[1], sides[0]]);
    let weighted = cx.times(mean, 2.0 * alpha * beta, x);
    let of_neighbours = cx.mul(weighted, x.into());
    Ok(vec![(0, cx.sub(own, of_neighbours))])
}

/// Means of windows of channels, with zeros around.
fn averaged(
    cx: &mut RuleContext<'_>,
    x: Operand,
    size: i64,
    [before, behind]: [i64; 2],
) -> Operand {
    let y = cx.y();
    // One image with the channels as rows.
    let rank = cx.dims(y).map_or(4, |dims| dims.len());
    let wide = cx.unsqueeze(x, &[1]);
    let wide = match rank {
        2 => cx.unsqueeze(wide, &[-1]),
        3 => wide,
        _ => cx.reshape(wide, &[0, 0, 0, -1]),
    };
    let attributes = [
        Attribute::ints("kernel_shape", &[size, 1]),
        Attribute::ints("pads", &[before, 0, behind, 0]),
        Attribute::int("count_include_pad", 1),
    ];
    let pooled = cx.op_with("AveragePool", &[wide], attributes);
    cx.reshape_like(pooled, y)
}
