//! Matrix products, linear in one of their factors.
//!
//! ```text
//! y = A B                  s_A = s_y B^T            s_B = A^T s_y
//! y = Einsum <ab,bc->ac>   s_A = Einsum <ac,bc->ab> (s_y, B)
//! ```

use bcosc_ir::views::Gemm;
use bcosc_ir::{Attribute, Op, Operand, Value};

use super::step::{Found, Step};
use bcosc_passes::Reason;

pub(super) fn matmul(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let (a, b) = (step.operand(0)?, step.operand(1)?);
    let (rank_a, rank_b) = (step.dims(a)?.len(), step.dims(b)?.len());
    if rank_a < 2 || rank_b < 2 {
        return Err(Reason::VectorProduct);
    }
    let batch = |step: &Step<'_>, of: Value| -> Result<_, Reason> {
        let dims = step.dims(of)?;
        Ok(dims[..dims.len() - 2].to_vec())
    };
    let (wide, mut found) = (batch(step, step.y())?, Vec::new());
    for &slot in step.wanted {
        let (operand, product) = match slot {
            0 => {
                let turned = swapped(step, b, rank_b);
                (a, step.op("MatMul", &[dy, turned]))
            }
            _ => {
                let turned = swapped(step, a, rank_a);
                (b, step.op("MatMul", &[turned, dy]))
            }
        };
        // The last two axes are those of the operand; those before may have been repeated.
        let own = step.dims(operand)?;
        let mut from = wide.clone();
        from.extend_from_slice(&own[own.len() - 2..]);
        found.push((slot, step.unbroadcast_from(product, &from, &own)?));
    }
    Ok(found)
}

/// A value with its last two axes swapped.
fn swapped(step: &mut Step<'_>, x: Value, rank: usize) -> Operand {
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 2, rank - 1);
    step.transpose(x.into(), &perm)
}

pub(super) fn gemm(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let view = Gemm::of(step.graph, step.node).ok_or(Reason::Malformed)?;
    let mut found = Vec::new();
    for &slot in step.wanted {
        let (a, b) = (view.a.into(), view.b.into());
        let (factors, trans) = match (slot, view.trans_a, view.trans_b) {
            (0, false, trans_b) => ([dy, b], [false, !trans_b]),
            (0, true, trans_b) => ([b, dy], [trans_b, true]),
            (1, trans_a, false) => ([a, dy], [!trans_a, false]),
            (1, trans_a, true) => ([dy, a], [true, trans_a]),
            _ => {
                let c = view.c.ok_or(Reason::Malformed)?;
                let narrow = step.unbroadcast(dy, c)?;
                let beta = step.number(c, f64::from(view.beta));
                let scaled = match view.beta {
                    1.0 => narrow,
                    _ => step.mul(narrow, beta),
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
        found.push((slot, step.patch.op(op, &factors)));
    }
    Ok(found)
}

/// Two factors, every index once in each; an index that only the linear factor has would have to be
/// repeated, and is left to a clearer way of writing it.
pub(super) fn einsum(step: &mut Step<'_>) -> Found {
    let dy = step.dy()?;
    let equation = step.op.string("equation").ok_or(Reason::Malformed)?;
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = equation.split_once("->").ok_or(Reason::NoDerivative)?;
    let terms: Vec<&str> = inputs.split(',').collect();
    let plain = |term: &str| {
        let distinct = term
            .chars()
            .enumerate()
            .all(|(i, c)| term.find(c) == Some(i));
        distinct && term.chars().all(char::is_alphabetic)
    };
    if !plain(output) || !terms.iter().all(|term| plain(term)) || terms.len() > 2 {
        return Err(Reason::NoDerivative);
    }
    let mut found = Vec::new();
    for &slot in step.wanted {
        let own = *terms.get(slot as usize).ok_or(Reason::Malformed)?;
        let other = (0..terms.len()).find(|&i| i != slot as usize);
        let seen = other.map_or("", |i| terms[i]);
        if own
            .chars()
            .any(|c| !output.contains(c) && !seen.contains(c))
        {
            return Err(Reason::NoDerivative);
        }
        let (mut factors, mut left) = (vec![dy], output.to_owned());
        if let Some(i) = other {
            factors.push(step.operand(i as u32)?.into());
            left = format!("{output},{seen}");
        }
        let equation = Attribute::string("equation", &format!("{left}->{own}"));
        found.push((slot, step.op_with("Einsum", &factors, [equation])));
    }
    Ok(found)
}
