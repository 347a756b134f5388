//! Views, and what moves elements to places that do not depend on values.

use bcosc_ir::Tensor;

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Expr, Formula, Index, Type};
use crate::program::vars;

pub(super) const RULES: Table = &[
    ("Concat", concat),
    ("Constant", constant),
    ("ConstantOfShape", constant_of_shape),
    ("Expand", expand),
    ("EyeLike", eye_like),
    ("Flatten", view),
    ("Identity", |cx| Ok(vec![Some(cx.operand(0)?)])),
    ("Range", range),
    ("Reshape", reshape),
    ("Shape", shape),
    ("Size", |cx| {
        let x = cx.operand(0)?;
        let count = cx.dims(x).iter().product::<u64>() as i64;
        integers(cx, &[], vec![count])
    }),
    ("Slice", slice),
    ("Split", split),
    ("Squeeze", squeeze),
    ("Tile", tile),
    ("Transpose", transpose),
    ("Trilu", trilu),
    ("Unsqueeze", unsqueeze),
];

/// The same elements in the shape of the output.
fn view(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, dims) = (cx.operand(0)?, cx.result()?);
    if cx.dims(x).iter().product::<u64>() != dims.iter().product::<u64>() {
        return malformed("the output has another number of elements");
    }
    Ok(vec![Some(cx.program.view(x, &dims))])
}

fn reshape(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    if cx.result().is_ok() {
        return view(cx);
    }
    let (x, shape) = (cx.operand(0)?, cx.ints(1)?);
    let own = cx.dims(x);
    let keeps: bool = !cx.given("allowzero").unwrap_or(false);
    let mut dims = Vec::new();
    for (axis, &size) in shape.iter().enumerate() {
        dims.push(match size {
            0 if keeps => *own
                .get(axis)
                .ok_or_else(|| Reason::Malformed("a size of 0".to_owned()))?,
            // Known once the others are.
            size if size < 0 => 1,
            size => size as u64,
        });
    }
    let (count, known) = (own.iter().product::<u64>(), dims.iter().product::<u64>());
    if let Some(open) = shape.iter().position(|&size| size < 0) {
        dims[open] = count.checked_div(known).unwrap_or(0);
    }
    if dims.iter().product::<u64>() != count {
        return malformed("the output has another number of elements");
    }
    Ok(vec![Some(cx.program.view(x, &dims))])
}

fn squeeze(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    if cx.result().is_ok() {
        return view(cx);
    }
    let x = cx.operand(0)?;
    let (own, axes) = (cx.dims(x), cx.axes(x, 1)?);
    let kept = (0..own.len()).filter(|axis| own[*axis] != 1 || !axes.contains(axis));
    let dims: Vec<u64> = kept.map(|axis| own[axis]).collect();
    Ok(vec![Some(cx.program.view(x, &dims))])
}

fn unsqueeze(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    if cx.result().is_ok() {
        return view(cx);
    }
    let x = cx.operand(0)?;
    let axes = match cx.op.get::<&[i64]>("axes") {
        Some(axes) => axes.to_vec(),
        None => cx.ints(1)?,
    };
    let mut dims = cx.dims(x);
    let rank = dims.len() + axes.len();
    let mut axes = axes
        .into_iter()
        .map(|axis| cx.axis_of(axis, rank))
        .collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    for axis in axes {
        if axis > dims.len() {
            return malformed("an axis is given twice");
        }
        dims.insert(axis, 1);
    }
    Ok(vec![Some(cx.program.view(x, &dims))])
}

fn integers(cx: &mut RuleContext<'_>, dims: &[u64], values: Vec<i64>) -> Result<Outputs, Reason> {
    let name = cx.name.clone();
    let tensor = Tensor::i64s(dims, values);
    Ok(vec![Some(cx.program.constant(&name, Type::I64, tensor))])
}

fn constant(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let value = cx.op.tensor("value");
    let value = value.ok_or(Reason::Form("a Constant that is no tensor"))?;
    let ty = Type::of(value.dtype()).ok_or(Reason::Type(value.dtype()))?;
    let name = cx.name.clone();
    Ok(vec![Some(cx.program.constant(&name, ty, value))])
}

fn constant_of_shape(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let dims = cx.result()?;
    let number = match cx.op.tensor("value") {
        Some(value) => {
            let ty = Type::of(value.dtype()).ok_or(Reason::Type(value.dtype()))?;
            let found = crate::program::uniform(&value, ty);
            Expr::Number(found.ok_or_else(|| Reason::Malformed("attribute `value`".into()))?).into()
        }
        None => Formula::number(Type::F32, 0.0),
    };
    cx.output(&dims, number)
}

fn shape(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let dims: Vec<i64> = cx.dims(cx.operand(0)?).iter().map(|&d| d as i64).collect();
    let rank = dims.len() as i64;
    let place = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
    let start = place(cx.given("start").unwrap_or(0));
    let end = place(cx.given("end").unwrap_or(rank)).max(start);
    integers(cx, &[(end - start) as u64], dims[start..end].to_vec())
}

fn range(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let dims = cx.result()?;
    let [start, delta] =
        [0, 2].map(|slot| cx.operand(slot).map(|id| cx.program.broadcast(id, &dims)));
    let (start, delta) = (start?, delta?);
    let count = Formula::position(vars(&dims)[0].clone()).cast(start.ty());
    cx.output(&dims, start + count * delta)
}

fn eye_like(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (dims, ty) = (cx.result()?, cx.result_type()?);
    let [row, column] = &vars(&dims)[..] else {
        return malformed("it takes matrices");
    };
    let distance = column
        .plus(&row.times(-1))
        .offset(-cx.attribute::<i64>("k")?);
    let on = Formula::within(distance, 0, 1);
    cx.output(&dims, on.cast(ty))
}

fn trilu(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let dims = cx.dims(x);
    let at = vars(&dims);
    let [.., row, column] = &at[..] else {
        return malformed("it takes matrices");
    };
    let k = match cx.optional_ints(1)? {
        Some(k) => k.first().copied().unwrap_or(0),
        None => 0,
    };
    let distance = column.plus(&row.times(-1));
    let kept = match cx.attribute("upper")? {
        true => Formula::within(distance, k, i64::MAX),
        false => Formula::within(distance, i64::MIN, k.saturating_add(1)),
    };
    let element = cx.element(x);
    let zero = element.like(0.0);
    cx.output(&dims, kept.select(element, zero))
}

fn transpose(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let own = cx.dims(x);
    let order: Vec<usize> = match cx.given::<&[i64]>("perm") {
        Some(order) if !order.is_empty() => {
            let axes = order.iter().map(|&axis| cx.axis_of(axis, own.len()));
            axes.collect::<Result<_, _>>()?
        }
        _ => (0..own.len()).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..own.len()) {
        return malformed("attribute `perm` is no order of the axes");
    }
    let dims: Vec<u64> = order.iter().map(|&axis| own[axis]).collect();
    // Only axes of size 1 move: nothing moves in memory.
    let moving = |order: &[usize]| order.iter().copied().filter(|&a| own[a] != 1).is_sorted();
    if moving(&order) {
        return Ok(vec![Some(cx.program.view(x, &dims))]);
    }
    let to = vars(&dims);
    let mut at = vec![Index::default(); own.len()];
    for (index, &axis) in to.into_iter().zip(&order) {
        at[axis] = index;
    }
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

fn expand(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let own = cx.dims(x);
    let dims = cx.result().or_else(|_| {
        let shape = cx.ints(1)?;
        let rank = shape.len().max(own.len());
        let wide = |n: usize| (rank - n).min(rank);
        let sizes = (0..rank).map(|axis| {
            let wanted = axis
                .checked_sub(wide(shape.len()))
                .and_then(|a| shape.get(a));
            let own = axis.checked_sub(wide(own.len())).and_then(|a| own.get(a));
            own.copied()
                .unwrap_or(1)
                .max(wanted.map_or(1, |&size| size.max(0) as u64))
        });
        Ok::<_, Reason>(sizes.collect())
    })?;
    if own == dims {
        return Ok(vec![Some(x)]);
    }
    let element = cx.program.broadcast(x, &dims);
    cx.output(&dims, element)
}

fn tile(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let (x, dims) = (cx.operand(0)?, cx.result()?);
    let own = cx.dims(x);
    let at = vars(&dims).into_iter().zip(&own);
    let at = at
        .map(|(index, &size)| index.modulo(size.max(1) as i64))
        .collect();
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

/// `start` of an axis of `size`, as `Slice` counts it.
fn slice_start(start: i64, step: i64, size: i64) -> i64 {
    let start = if start < 0 {
        start.saturating_add(size)
    } else {
        start
    };
    match step < 0 {
        true => start.clamp(0, size - 1),
        false => start.clamp(0, size),
    }
}

fn slice(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let own = cx.dims(x);
    let mut dims = cx.result().unwrap_or_else(|_| own.clone());
    let known = cx.result().is_ok();
    let given = |name: &str, slot| match cx.op.get::<&[i64]>(name) {
        Some(values) => Ok(Some(values.to_vec())),
        None => cx.optional_ints(slot),
    };
    let (Some(starts), Some(ends)) = (given("starts", 1)?, given("ends", 2)?) else {
        return malformed("it has no starts or ends");
    };
    let all = (0..starts.len() as i64).collect();
    let axes = given("axes", 3)?.unwrap_or(all);
    let steps = given("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let mut sliced = Vec::new();
    for (n, (&axis, &start)) in axes.iter().zip(&starts).enumerate() {
        let axis = cx.axis_of(axis, own.len())?;
        let (Some(&step), Some(&end)) = (steps.get(n), ends.get(n)) else {
            return malformed("it has fewer steps or ends than starts");
        };
        let size = own[axis] as i64;
        let start = slice_start(start, step, size);
        if !known {
            let end = if end < 0 {
                end.saturating_add(size)
            } else {
                end
            };
            let (low, high) = if step < 0 { (-1, size - 1) } else { (0, size) };
            let room = end.clamp(low, high) - start;
            dims[axis] = room.checked_div(step).map_or(0, |n| {
                (n + i64::from(room % step != 0 && (room < 0) == (step < 0))).max(0) as u64
            });
        }
        sliced.push((axis, start, step));
    }
    let mut at = vars(&dims);
    for (axis, start, step) in sliced {
        at[axis] = Index::var(axis as u32, dims[axis] as i64)
            .times(step)
            .offset(start);
    }
    if own == dims && at == vars(&dims) {
        return Ok(vec![Some(x)]);
    }
    let element = cx.load(x, at);
    cx.output(&dims, element)
}

fn concat(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let parts = cx.operands()?;
    let Some(&first) = parts.first() else {
        return malformed("there are no operands");
    };
    let mut dims = cx.dims(first);
    let axis = cx.axis_of(cx.attribute("axis")?, dims.len())?;
    if parts.iter().any(|&part| cx.dims(part).len() != dims.len()) {
        return malformed("the operands have several ranks");
    }
    dims[axis] = parts.iter().map(|&part| cx.dims(part)[axis]).sum();
    let at = vars(&dims);
    let mut end = dims[axis] as i64;
    let mut whole: Option<Formula> = None;
    for &part in parts.iter().rev() {
        let size = cx.dims(part)[axis] as i64;
        if size == 0 {
            continue;
        }
        let mut own = at.clone();
        own[axis] = own[axis].offset(size - end);
        let element = cx.load(part, own);
        whole = Some(match whole {
            None => element,
            Some(rest) => Formula::within(at[axis].clone(), 0, end).select(element, rest),
        });
        end -= size;
    }
    let Some(whole) = whole else {
        return Ok(vec![Some(first)]);
    };
    cx.output(&dims, whole)
}

fn split(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let axis = cx.axis(x)?;
    let mut outputs = Vec::new();
    let mut start = 0;
    for slot in 0..cx.outputs.len() {
        let dims = cx.result_of(slot)?;
        let mut at = vars(&dims);
        at[axis] = at[axis].offset(start);
        start += dims[axis] as i64;
        let element = cx.load(x, at);
        outputs.push(Some(cx.map(&dims, element)));
    }
    Ok(outputs)
}
