//! 1x1 convolutions of stride 1 and one group as products of matrices.
//!
//! | layout | products |
//! |---|---|
//! | channels first | one for each image; the gradient of the weight is the sum of theirs |
//! | channels last | one for all positions of all images |

use super::RuleContext;
use super::convolutions::Sizes;
use crate::expr::{Fold, TensorId};
use crate::program::{Call, Factor, Layout, Product};

/// A factor whose rows follow one another, `columns` elements apart.
fn rows(columns: u64, batch: u64) -> Factor {
    Factor {
        offset: 0,
        batch,
        row: columns,
        column: 1,
    }
}

/// A factor that is the transpose of what lies in memory in rows, `rows` elements apart.
fn turned(rows: u64, batch: u64) -> Factor {
    Factor {
        offset: 0,
        batch,
        row: 1,
        column: rows,
    }
}

/// The product over all positions; the result channels first.
fn of_positions(
    cx: &mut RuleContext<'_>,
    sizes: &Sizes,
    operands: [TensorId; 2],
    product: Product,
) -> TensorId {
    let to = [&sizes.y[..1], &sizes.y[2..], &[product.n]].concat();
    let call = Call::product(product, operands);
    let made = cx.call(operands[0], &to, call);
    cx.program.channels_first(made)
}

pub(super) fn forward(cx: &mut RuleContext<'_>, x: TensorId, w: TensorId, s: &Sizes) -> TensorId {
    let [out, channels, positions] = [s.w[0], s.w[1], s.positions()];
    if s.layout(cx, x) == Layout::ChannelsLast {
        let product = Product {
            batch: 1,
            m: s.x[0] * positions,
            n: out,
            k: channels,
            a: rows(channels, 0),
            b: turned(channels, 0),
        };
        let operands = [cx.program.channels_last(x), w];
        return of_positions(cx, s, operands, product);
    }
    let product = Product {
        batch: s.x[0],
        m: out,
        n: positions,
        k: channels,
        a: rows(channels, 0),
        b: rows(positions, channels * positions),
    };
    let operands = [w, x];
    cx.call(x, &s.y, Call::product(product, operands))
}

pub(super) fn to_input(cx: &mut RuleContext<'_>, dy: TensorId, w: TensorId, s: &Sizes) -> TensorId {
    let [out, channels, positions] = [s.w[0], s.w[1], s.positions()];
    if s.layout(cx, dy) == Layout::ChannelsLast {
        let product = Product {
            batch: 1,
            m: s.x[0] * positions,
            n: channels,
            k: out,
            a: rows(out, 0),
            b: rows(channels, 0),
        };
        let operands = [cx.program.channels_last(dy), w];
        return of_positions(cx, s, operands, product);
    }
    let product = Product {
        batch: s.x[0],
        m: channels,
        n: positions,
        k: out,
        a: turned(channels, 0),
        b: rows(positions, out * positions),
    };
    let operands = [w, dy];
    cx.call(dy, &s.x, Call::product(product, operands))
}

/// None where the products of single images are more numbers than are read.
pub(super) fn to_weight(
    cx: &mut RuleContext<'_>,
    x: TensorId,
    dy: TensorId,
    s: &Sizes,
) -> Option<TensorId> {
    let [m, n, positions] = [s.w[0], s.w[1], s.positions()];
    if s.layout(cx, x) == Layout::ChannelsLast {
        let product = Product {
            batch: 1,
            m,
            n,
            k: s.x[0] * positions,
            a: turned(m, 0),
            b: rows(n, 0),
        };
        let operands = [dy, x].map(|id| cx.program.channels_last(id));
        return Some(cx.call(x, &s.w, Call::product(product, operands)));
    }
    if m * n > (m + n) * positions {
        return None;
    }
    let product = Product {
        batch: s.x[0],
        m,
        n,
        k: positions,
        a: rows(positions, m * positions),
        b: turned(positions, n * positions),
    };
    let operands = [dy, x];
    let full = [s.x[0], m, n];
    let parts = cx.call(x, &full, Call::product(product, operands));
    let element = cx.element(parts);
    let sum = cx.reduced(Fold::Sum, &full, &[0], element);
    Some(cx.program.view(sum, &s.w))
}
