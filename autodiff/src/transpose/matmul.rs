//! Matrix products, linear in one of their factors.
//!
//! ```text
//! y = A B                  s_A = s_y B^T            s_B = A^T s_y
//! y = Einsum <ab,bc->ac>   s_A = Einsum <ac,bc->ab> (s_y, B)
//! ```

use bcosc_ir::views::Gemm;
use bcosc_ir::{Attribute, Op, Operand, Value};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

pub(crate) fn matmul(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let (a, b) = (cx.operand(0)?, cx.operand(1)?);
    let (rank_a, rank_b) = (cx.dims(a)?.len(), cx.dims(b)?.len());
    if rank_a < 2 || rank_b < 2 {
        return Err(Reason::VectorProduct);
    }
    let batch = |cx: &RuleContext<'_>, of: Value| -> Result<_, Reason> {
        let dims = cx.dims(of)?;
        Ok(dims[..dims.len() - 2].to_vec())
    };
    let (wide, mut found) = (batch(cx, cx.y())?, Vec::new());
    for &slot in cx.wanted {
        let (operand, product) = match slot {
            0 => {
                let turned = swapped(cx, b, rank_b);
                (a, cx.op("MatMul", &[dy, turned]))
            }
            _ => {
                let turned = swapped(cx, a, rank_a);
                (b, cx.op("MatMul", &[turned, dy]))
            }
        };
        // The last two axes are those of the operand; those before may have been repeated.
        let own = cx.dims(operand)?;
        let mut from = wide.clone();
        from.extend_from_slice(&own[own.len() - 2..]);
        found.push((slot, cx.unbroadcast_from(product, &from, &own)?));
    }
    Ok(found)
}

/// A value with its last two axes swapped.
fn swapped(cx: &mut RuleContext<'_>, x: Value, rank: usize) -> Operand {
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 2, rank - 1);
    cx.transpose(x.into(), &perm)
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

/// Two factors, every index once in each; an index that only the linear factor has would have to be
/// repeated, and is left to a clearer way of writing it.
pub(crate) fn einsum(cx: &mut RuleContext<'_>) -> Found {
    let dy = cx.dy()?;
    let equation: &str = cx.attribute("equation")?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = equation.split_once("->").ok_or(Reason::NoBackwardRule)?;
    let terms: Vec<&str> = inputs.split(',').collect();
    let plain = |term: &str| {
        let distinct = term
            .chars()
            .enumerate()
            .all(|(i, c)| term.find(c) == Some(i));
        distinct && term.chars().all(char::is_alphabetic)
    };
    if !plain(output) || !terms.iter().all(|term| plain(term)) || terms.len() > 2 {
        return Err(Reason::NoBackwardRule);
    }
    let mut found = Vec::new();
    for &slot in cx.wanted {
        let own = *terms.get(slot as usize).ok_or(Reason::Malformed)?;
        let other = (0..terms.len()).find(|&i| i != slot as usize);
        let seen = other.map_or("", |i| terms[i]);
        if own
            .chars()
            .any(|c| !output.contains(c) && !seen.contains(c))
        {
            return Err(Reason::NoBackwardRule);
        }
        let (mut factors, mut left) = (vec![dy], output.to_owned());
        if let Some(i) = other {
            factors.push(cx.operand(i as u32)?.into());
            left = format!("{output},{seen}");
        }
        let equation = Attribute::string("equation", &format!("{left}->{own}"));
        found.push((slot, cx.op_with("Einsum", &factors, [equation])));
    }
    Ok(found)
}
