//! Operators with a tensor of indices.
//!
//! ```text
//! y = GatherND (x, i)            s_x = ScatterND <add> (0, i, s_y)
//! y = GatherElements (x, i)      s_x = ScatterElements <add> (0, i, s_y)
//! y, i = TopK (x)                s_x = ScatterElements (0, i, s_y)
//! y = ScatterND (x, i, u)        s_x = s_y with zeros at i, or with <add> s_y     s_u = GatherND (s_y, i)
//! y = ScatterElements (x, i, u)  likewise
//! ```

use bcosc_ir::{Attribute, Operand, Tensor, Value};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;

/// Places that may be met twice are added up from here.
const ADDING: i64 = 16;

pub(crate) fn gather_nd(cx: &mut RuleContext<'_>) -> Found {
    match cx.attribute("batch_dims")? {
        0 => picked(cx, "ScatterND", None),
        batch => picked_in_batches(cx, batch),
    }
}

/// With all batch dimensions as one, a place is the number of its batch before its index.
fn picked_in_batches(cx: &mut RuleContext<'_>, batch: i64) -> Found {
    let (dy, x, indices) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let dims = cx.known_dims(x)?;
    let depth = *cx.known_dims(indices)?.last().ok_or(Reason::Malformed)?;
    let lead = dims.get(..batch as usize).ok_or(Reason::Malformed)?;
    let rest = dims.get((batch + depth) as usize..);
    let count: i64 = lead.iter().product();
    let indices = cx.reshape(indices.into(), &[count, -1, depth]);
    let numbers = Tensor::i64s(&[count as u64, 1, 1], (0..count).collect());
    let mut numbers = cx.patch.parameter("batches", numbers);
    let shape = cx.op("Shape", &[indices]);
    let rows = cx.slice(shape, &[0], &[0], &[2]);
    let one = cx.ints(&[1]);
    let front = Attribute::int("axis", 0);
    let rows = cx.op_with("Concat", &[rows, one], [front]);
    numbers = cx.op("Expand", &[numbers, rows]);
    let places = cx.op_with("Concat", &[numbers, indices], [Attribute::int("axis", 2)]);
    let own = |first: &[i64], rest: &[i64]| [first, rest].concat();
    let rest = rest.ok_or(Reason::Malformed)?;
    let dy = cx.reshape(dy, &own(&[count, -1], rest));
    let flat = own(&[count], &dims[batch as usize..]);
    let zero = cx.number(x, 0.0);
    let flat = cx.ints(&flat);
    let zeros = cx.op("Expand", &[zero, flat]);
    let found = added(cx, "ScatterND", [zeros, places, dy], None)?;
    Ok(vec![(0, cx.reshape_like(found, x))])
}

pub(crate) fn gather_elements(cx: &mut RuleContext<'_>) -> Found {
    let axis = Attribute::int("axis", cx.attribute("axis")?);
    picked(cx, "ScatterElements", Some(axis))
}

fn picked(cx: &mut RuleContext<'_>, scatter: &str, axis: Option<Attribute>) -> Found {
    let (dy, x, indices) = (cx.dy()?, cx.operand(0)?, cx.operand(1)?);
    let zeros = zeros(cx, x);
    let found = added(cx, scatter, [zeros, indices.into(), dy], axis)?;
    Ok(vec![(0, found)])
}

/// Adds numbers up at indices of a tensor: `[tensor, indices, numbers]`.
pub(crate) fn added(
    cx: &mut RuleContext<'_>,
    scatter: &str,
    operands: [Operand; 3],
    axis: Option<Attribute>,
) -> Result<Operand, Reason> {
    if cx.opset < ADDING {
        return Err(Reason::NeedsOpset {
            opset: ADDING,
            what: "the backward rule of an operator with computed indices",
        });
    }
    let add = Attribute::string("reduction", "add");
    Ok(cx.op_with(scatter, &operands, axis.into_iter().chain([add])))
}

pub(crate) fn zeros(cx: &mut RuleContext<'_>, like: Value) -> Operand {
    let (zero, shape) = (cx.number(like, 0.0), cx.shape(like));
    cx.op("Expand", &[zero, shape])
}

/// No place is taken twice.
pub(crate) fn top(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let indices = cx.graph.output(cx.node, 1);
    let axis = Attribute::int("axis", cx.attribute("axis")?);
    let zeros = zeros(cx, x);
    let found = cx.op_with("ScatterElements", &[zeros, indices.into(), dy], [axis]);
    Ok(vec![(0, found)])
}

pub(crate) fn scatter_nd(cx: &mut RuleContext<'_>) -> Found {
    written(cx, "GatherND", None)
}

pub(crate) fn scatter_elements(cx: &mut RuleContext<'_>) -> Found {
    let axis = Attribute::int("axis", cx.attribute("axis")?);
    written(cx, "GatherElements", Some(axis))
}

fn written(cx: &mut RuleContext<'_>, gather: &str, axis: Option<Attribute>) -> Found {
    let (dy, indices, updates) = (cx.dy()?, cx.operand(1)?, cx.operand(2)?);
    let indices = Operand::Old(indices);
    let adds = match cx.op.get("reduction") {
        None | Some("none") => false,
        Some("add") => true,
        Some(_) => {
            return Err(Reason::NoBackwardRuleFor(
                "a scatter that multiplies or compares",
            ));
        }
    };
    let mut found = Vec::new();
    if cx.wants(0) {
        let kept = match adds {
            true => dy,
            false => {
                let (name, zeros) = (cx.op.op_type(), zeros(cx, updates));
                cx.op_with(name, &[dy, indices, zeros], axis.clone())
            }
        };
        found.push((0, kept));
    }
    if cx.wants(2) {
        found.push((2, cx.op_with(gather, &[dy, indices], axis)));
    }
    Ok(found)
}
