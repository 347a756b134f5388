//! Matrix products, linear in each of their factors.
//!
//! ```text
//! y = A B   s_A = s_y B^T   s_B = A^T s_y
//! ```
//!
//! A matrix B that every matrix of A is multiplied with gets its cotangent from one product: the rows of all of
//! them, times those of s_y.

use bcosc_ir::views::{AxesOp, Gemm};
use bcosc_ir::{Dim, Op, Operand};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn matmul(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    let (dims_a, dims_b) = (cx.dims(a)?, cx.dims(b)?);
    if dims_a.is_empty() || dims_b.is_empty() {
        return Err(Reason::Malformed);
    }
    if dims_a.len() == 1 || dims_b.len() == 1 {
        return vector_product(cx, dy, [&dims_a, &dims_b]);
    }
    let wide = cx.dims(cx.y())?;
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let (own, product) = match slot {
            0 => {
                let turned = cx.turned(b.into(), dims_b.len());
                (&dims_a, cx.op("MatMul", &[dy, turned]))
            }
            _ if dims_b.len() == 2 && dims_a.len() > 2 && known(&dims_b) => {
                let rows = rows(cx, a.into(), &dims_b[0]);
                let turned = cx.turned(rows, 2);
                let dy = self::rows(cx, dy, &dims_b[1]);
                found.push((slot, cx.op("MatMul", &[turned, dy])));
                continue;
            }
            _ => {
                let turned = cx.turned(a.into(), dims_a.len());
                (&dims_b, cx.op("MatMul", &[turned, dy]))
            }
        };
        // The last two axes are those of the operand; those before may have been repeated.
        let mut from = wide[..wide.len() - 2].to_vec();
        from.extend_from_slice(&own[own.len() - 2..]);
        found.push((slot, cx.unbroadcast_from(product, &from, own)?));
    }
    Ok(found)
}
fn known(dims: &[Dim]) -> bool {
    dims.iter().all(|dim| dim.known().is_some())
}

/// A value as a matrix whose rows are its vectors along the last axis.
fn rows(cx: &mut RuleContext<'_>, x: Operand, size: &Dim) -> Operand {
    cx.reshape(x, &[-1, size.known().map_or(-1, |size| size as i64)])
}

/// A product with one vector or two.
fn vector_product(cx: &mut RuleContext<'_>, dy: Operand, [dims_a, dims_b]: [&[Dim]; 2]) -> Found {
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    let (rank_a, rank_b) = (dims_a.len() as i64, dims_b.len() as i64);
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let product = match (slot, rank_a, rank_b) {
            (0, 1, 1) => cx.mul(dy, b.into()),
            (_, 1, 1) => cx.mul(dy, a.into()),
            // [K] [.., K, N] = [.., N]
            (_, 1, _) => {
                let row = cx.unsqueeze(dy, &[rank_b - 2]);
                match slot {
                    0 => {
                        let turned = cx.turned(b.into(), dims_b.len());
                        let product = cx.op("MatMul", &[row, turned]);
                        let axes: Vec<i64> = (0..rank_b - 1).collect();
                        cx.reduce_to(AxesOp::ReduceSum, product, &axes)
                    }
                    _ => {
                        let column = cx.unsqueeze(a.into(), &[1]);
                        cx.mul(column, row)
                    }
                }
            }
            // [.., M, K] [K] = [.., M]
            _ => {
                let column = cx.unsqueeze(dy, &[rank_a - 1]);
                match slot {
                    0 => cx.mul(column, b.into()),
                    _ => {
                        let product = cx.mul(column, a.into());
                        let axes: Vec<i64> = (0..rank_a - 1).collect();
                        cx.reduce_to(AxesOp::ReduceSum, product, &axes)
                    }
                }
            }
        };
        found.push((slot, product));
    }
    Ok(found)
}

pub(crate) fn gemm(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let view = Gemm::of(cx.graph, cx.node).ok_or(Reason::Malformed)?;
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let (a, b) = (view.a.into(), view.b.into());
        let (factors, trans) = match (slot, view.trans_a, view.trans_b) {
            (0, false, trans_b) => ([dy, b], [false, !trans_b]),
            (0, true, trans_b) => ([b, dy], [trans_b, true]),
            (1, trans_a, false) => ([a, dy], [!trans_a, false]),
            (1, trans_a, true) => ([dy, a], [true, trans_a]),
            _ => {
                let c = view.c.ok_or(Reason::Malformed)?;
                let narrow = cx.unbroadcast(dy, c)?;
                let beta = cx.number(c, f64::from(view.beta));
                let scaled = match view.beta {
                    1.0 => narrow,
                    _ => cx.mul(narrow, beta),
                };
                found.push((slot, scaled));
                continue;
            }
        };
        let mut op = Op::new("", "Gemm");
        for (name, trans) in ["transA", "transB"].into_iter().zip(trans) {
            if trans {
                op = op.with_int(name, 1);
            }
        }
        if view.alpha != 1.0 {
            op = op.with_float("alpha", view.alpha);
        }
        found.push((slot, cx.patch.op(op, &factors)));
    }
    Ok(found)
}
