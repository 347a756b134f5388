//! `Resize` and `Upsample`: a matrix along each axis.
//!
//! ```text
//! y = x R     along one axis, R = Resize (I), as the operator itself resizes the identity
//! s_x = s_y R^T
//! ```
//!
//! So the runtime's own coordinates and coefficients are what comes back, whatever the mode, and sizes may
//! stay dynamic. Where each pixel just becomes a block of its like, the sum over the block is a convolution.

use bcosc_ir::{Attribute, Dim, Op, Operand, Tensor, Value};

use super::window::grouped;
use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

/// From here on there are sizes, and coordinates to choose from.
const MODERN: i64 = 11;
const SIZES: u32 = 3;
/// From here on there are identity matrices.
const IDENTITY: i64 = 9;

pub(crate) fn resize(cx: &mut RuleContext<'_>) -> Found {
    // What lies outside of a crop is a number of its own, and a kept aspect ratio makes other scales.
    if coordinates(cx)?.0 == "tf_crop_and_resize"
        || !matches!(
            cx.op.get("keep_aspect_ratio_policy"),
            None | Some("stretch")
        )
    {
        return Err(Reason::NoBackwardRule);
    }
    let scales = scales(cx)?;
    if let Some(factors) = blocks(cx, &scales)? {
        return sums_of_blocks(cx, &factors);
    }
    let (from, to) = dims(cx)?;
    let mut found = cx.dy()?;
    for axis in 0..from.len() {
        let kept = match &scales {
            Scales::Known(scales) => scales[axis] == 1.0,
            _ => from[axis] == to[axis] && from[axis] != Dim::Unknown,
        };
        if !kept {
            let matrix = matrix(cx, &scales, axis, from.len())?;
            found = product(cx, found, matrix, axis, from.len());
        }
    }
    Ok(vec![(0, found)])
}

/// Where a pixel is looked for, and how its place is rounded.
fn coordinates<'s>(cx: &RuleContext<'s>) -> Result<(&'s str, &'s str), Reason> {
    if cx.opset < MODERN {
        return Ok(("asymmetric", "floor"));
    }
    let mode = cx.attribute("coordinate_transformation_mode")?;
    Ok((mode, cx.attribute("nearest_mode")?))
}

/// Dimensions of x and of y, whose sizes inference may not know.
fn dims(cx: &RuleContext<'_>) -> Result<(Vec<Dim>, Vec<Dim>), Reason> {
    let from = cx.dims(cx.operand(0)?)?;
    let to = cx.dims(cx.y());
    let to = to.unwrap_or_else(|_| vec![Dim::Unknown; from.len()]);
    match from.len() == to.len() {
        true => Ok((from, to)),
        false => Err(Reason::Malformed),
    }
}

/// How the new sizes are given.
enum Scales {
    /// One factor per axis.
    Known(Vec<f64>),
    /// Factors that are computed at run time, each at its place in the value.
    Computed(Value, Vec<Option<usize>>),
    /// By the sizes themselves.
    Sizes,
}

fn scales(cx: &RuleContext<'_>) -> Result<Scales, Reason> {
    let rank = cx.dims(cx.operand(0)?)?.len();
    let axes: Vec<usize> = match cx.op.get::<&[i64]>("axes") {
        Some(axes) => axes
            .iter()
            .map(|&axis| cx.axis(axis, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    if let Some(attribute) = cx.op.attribute("scales") {
        let given = attribute.proto().floats.iter();
        return known(given.map(|&x| f64::from(x)).collect(), &axes, rank);
    }
    let slot = if cx.opset < MODERN { 1 } else { 2 };
    let Some(operand) = cx.graph.input(cx.node, slot) else {
        return Ok(Scales::Sizes);
    };
    let Some(tensor) = cx.graph.constant(operand) else {
        if cx.graph.input(cx.node, SIZES).is_some() {
            return Ok(Scales::Sizes);
        }
        let place = |axis| axes.iter().position(|&a| a == axis);
        return Ok(Scales::Computed(operand, (0..rank).map(place).collect()));
    };
    let given = tensor.to_f64s().map_err(|_| Reason::Malformed)?;
    if given.is_empty() {
        return Ok(Scales::Sizes);
    }
    known(given, &axes, rank)
}

/// Factors of some axes; the others keep their size.
fn known(given: Vec<f64>, axes: &[usize], rank: usize) -> Result<Scales, Reason> {
    if given.len() != axes.len() {
        return Err(Reason::Malformed);
    }
    let mut scales = vec![1.0; rank];
    for (&axis, scale) in axes.iter().zip(given) {
        scales[axis] = scale;
    }
    Ok(Scales::Known(scales))
}

/// Whole factors by which each pixel becomes a block.
fn blocks(cx: &RuleContext<'_>, scales: &Scales) -> Result<Option<Vec<i64>>, Reason> {
    let centred = match coordinates(cx)? {
        ("asymmetric", rounding) => rounding == "floor",
        ("half_pixel", rounding) => {
            matches!(rounding, "round_prefer_floor" | "round_prefer_ceil")
        }
        _ => false,
    };
    if cx.op.get("mode") != Some("nearest") || !centred {
        return Ok(None);
    }
    let (from, to) = dims(cx)?;
    let mut factors = Vec::new();
    for (axis, (from, to)) in from.iter().zip(&to).enumerate() {
        let factor = match (scales, from.known(), to.known()) {
            (Scales::Known(scales), ..) => scales[axis],
            (_, Some(from), Some(to)) if from > 0 => to as f64 / from as f64,
            _ if from == to && *from != Dim::Unknown => 1.0,
            _ => return Ok(None),
        };
        if factor < 1.0 || factor.fract() != 0.0 {
            return Ok(None);
        }
        factors.push(factor as i64);
    }
    let channels = from.get(1).and_then(Dim::known).is_some();
    let spatial = factors.iter().skip(2).any(|&k| k > 1);
    let whole = factors.iter().take(2).all(|&k| k == 1) && spatial && channels;
    Ok(whole.then(|| factors.split_off(2)))
}

fn sums_of_blocks(cx: &mut RuleContext<'_>, factors: &[i64]) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let channels = cx.dims(x)?.get(1).and_then(Dim::known);
    let channels = channels.ok_or(Reason::Malformed)?;
    let mut dims = vec![channels, 1];
    dims.extend(factors.iter().map(|&k| k as u64));
    let ones = vec![1.0; dims.iter().product::<u64>() as usize];
    let ones = weights::tensor(cx.dtype(x), &dims, &ones);
    let ones = cx.patch.parameter("block", ones);
    let op = Op::new("", "Conv").with_ints("strides", factors);
    let op = grouped(op, channels as i64);
    Ok(vec![(0, cx.patch.op(op, &[dy, ones]))])
}

/// `[size of x, size of y]` along an axis: the identity, resized as x is.
fn matrix(
    cx: &mut RuleContext<'_>,
    scales: &Scales,
    axis: usize,
    rank: usize,
) -> Result<Operand, Reason> {
    if cx.opset < IDENTITY {
        return Err(Reason::NeedsOpset {
            opset: IDENTITY,
            what: "the backward rule of an interpolating Upsample",
        });
    }
    let (x, y) = (cx.operand(0)?, cx.y());
    if axis == 0 {
        // Images are not blended with each other; more likely their number is not known.
        return Err(Reason::UnknownShape(cx.graph.value_name(y).to_owned()));
    }
    let (from, to) = (cx.size(x, axis), cx.size(y, axis));
    let concat = |cx: &mut RuleContext<'_>, parts: &[Operand]| {
        cx.op_with("Concat", parts, [Attribute::int("axis", 0)])
    };
    let (zero, square) = (cx.number(x, 0.0), concat(cx, &[from, from]));
    let zeros = cx.op("Expand", &[zero, square]);
    let identity = cx.op("EyeLike", &[zeros]);
    // Rows along the first axis, columns along the one that is resized.
    let others: Vec<i64> = (1..rank).filter(|&a| a != axis).map(|a| a as i64).collect();
    let identity = cx.unsqueeze(identity, &others);
    let ones = Tensor::f32s(&[1], vec![1.0]);
    let mut operands = vec![Some(identity)];
    if cx.opset >= MODERN {
        operands.push(None);
    }
    match scales {
        Scales::Known(scales) => {
            let mut alone = vec![1.0; rank];
            alone[axis] = scales[axis] as f32;
            let alone = Tensor::f32s(&[rank as u64], alone);
            operands.push(Some(cx.patch.parameter("scales", alone)));
        }
        Scales::Computed(given, places) => {
            let place = places[axis].ok_or(Reason::Malformed)?;
            let place = cx.ints(&[place as i64]);
            let scale = cx.op("Gather", &[(*given).into(), place]);
            let one = cx.patch.parameter("one", ones);
            let mut parts = vec![one; rank];
            parts[axis] = scale;
            operands.push(Some(concat(cx, &parts)));
        }
        Scales::Sizes => {
            let mut parts = vec![cx.ints(&[1]); rank];
            (parts[0], parts[axis]) = (from, to);
            operands.extend([None, Some(concat(cx, &parts))]);
        }
    }
    let mut op = Op::new("", cx.op.op_type());
    let attributes = cx.op.attributes().iter();
    for attribute in attributes.filter(|a| a.name() != "axes") {
        op = op.with(attribute.clone());
    }
    let resized = cx.patch.multi_op(op, &operands, 1);
    Ok(cx.reshape(resized, &[0, -1]))
}

/// A cotangent times a matrix along one axis.
fn product(
    cx: &mut RuleContext<'_>,
    dy: Operand,
    matrix: Operand,
    axis: usize,
    rank: usize,
) -> Operand {
    if axis + 1 == rank {
        let turned = cx.transpose(matrix, &[1, 0]);
        return cx.op("MatMul", &[dy, turned]);
    }
    if axis + 2 == rank {
        return cx.op("MatMul", &[matrix, dy]);
    }
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(axis, rank - 2);
    let turned = cx.transpose(dy, &perm);
    let product = cx.op("MatMul", &[matrix, turned]);
    cx.transpose(product, &perm)
}
