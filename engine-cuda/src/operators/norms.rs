//! Statistics along axes, and scaling by them.
//!
//! ```text
//! mean = mean of x      var = mean of (x - mean)^2      y = (x - mean) / sqrt(var + epsilon) * scale + bias
//! ```

use super::context::malformed;
use super::{Outputs, Reason, RuleContext, Table};
use crate::expr::{Fold, Formula, Index, TensorId};
use crate::program::vars;

pub(super) const RULES: Table = &[
    ("BatchNormalization", batch),
    ("GroupNormalization", group),
    ("InstanceNormalization", instance),
    ("LRN", local_response),
    ("LayerNormalization", layer),
    ("LpNormalization", length),
    ("MeanVarianceNormalization", mean_variance),
    ("RMSNormalization", root_mean_square),
];

/// The reciprocal of a deviation, `[.., 1, ..]`.
fn inverse_deviation(cx: &mut RuleContext<'_>, var: TensorId, epsilon: f64) -> TensorId {
    let (dims, var) = (cx.dims(var), cx.element(var));
    let one = var.like(1.0);
    cx.map(&dims, one / (var + epsilon).sqrt())
}

/// Mean and reciprocal deviation along axes.
fn statistics(
    cx: &mut RuleContext<'_>,
    full: &[u64],
    axes: &[usize],
    element: &Formula,
    epsilon: f64,
) -> (TensorId, TensorId) {
    let mean = cx.mean(full, axes, element.clone());
    let deviation = element.clone() - cx.program.broadcast(mean, full);
    let var = cx.mean(full, axes, deviation.square());
    let inverse = inverse_deviation(cx, var, epsilon);
    (mean, inverse)
}

/// `(x - mean) * inverse`.
fn standardised(
    cx: &mut RuleContext<'_>,
    full: &[u64],
    axes: &[usize],
    element: Formula,
    epsilon: f64,
) -> (Formula, [TensorId; 2]) {
    let (mean, inverse) = statistics(cx, full, axes, &element, epsilon);
    let [m, i] = [mean, inverse].map(|id| cx.program.broadcast(id, full));
    ((element - m) * i, [mean, inverse])
}

fn batch(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    if cx.given("training_mode").unwrap_or(false) || (1..5).any(|slot| cx.is_used(slot)) {
        return Err(Reason::Form("BatchNormalization in training mode"));
    }
    let [x, scale, bias, mean, var] = [0, 1, 2, 3, 4].map(|slot| cx.operand(slot));
    let (x, scale, bias, mean, var) = (x?, scale?, bias?, mean?, var?);
    let epsilon: f32 = cx.attribute("epsilon")?;
    let dims = cx.dims(x);
    let channels = cx.dims(scale);
    if dims.len() < 2 || channels != [dims[1]] {
        return malformed("it has not one scale for each channel");
    }
    let [s, m, v] = [scale, mean, var].map(|id| cx.element(id));
    let factor = s / (v + f64::from(epsilon)).sqrt();
    let b = cx.element(bias);
    // One number for each channel, so that elements take a product and a sum.
    let offset = b - m * factor.clone();
    let (factor, offset) = (cx.map(&channels, factor), cx.map(&channels, offset));
    let channel = vec![vars(&dims)[1].clone()];
    let [f, o] = [factor, offset].map(|id| cx.load(id, channel.clone()));
    let element = cx.element(x);
    cx.output(&dims, element * f + o)
}

fn layer(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let (full, axis) = (cx.dims(x), cx.axis(x)?);
    let axes: Vec<usize> = (axis..full.len()).collect();
    let epsilon: f32 = cx.attribute("epsilon")?;
    let element = cx.element(x);
    let (mut y, [mean, inverse]) = standardised(cx, &full, &axes, element, epsilon.into());
    y = y * cx.program.broadcast(cx.operand(1)?, &full);
    if let Some(bias) = cx.optional(2) {
        y = y + cx.program.broadcast(bias, &full);
    }
    let y = cx.map(&full, y);
    Ok(vec![Some(y), Some(mean), Some(inverse)])
}

fn root_mean_square(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let (full, axis) = (cx.dims(x), cx.axis(x)?);
    let axes: Vec<usize> = (axis..full.len()).collect();
    let epsilon: f32 = cx.attribute("epsilon")?;
    let element = cx.element(x);
    let mean = cx.mean(&full, &axes, element.clone().square());
    let inverse = inverse_deviation(cx, mean, epsilon.into());
    let y = element * cx.program.broadcast(inverse, &full);
    let scale = cx.program.broadcast(cx.operand(1)?, &full);
    cx.output(&full, y * scale)
}

fn instance(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let full = cx.dims(x);
    let axes: Vec<usize> = (2..full.len()).collect();
    let epsilon: f32 = cx.attribute("epsilon")?;
    let element = cx.element(x);
    let (y, _) = standardised(cx, &full, &axes, element, epsilon.into());
    let channel = vec![vars(&full)[1].clone()];
    let scale = cx.load(cx.operand(1)?, channel.clone());
    let bias = cx.load(cx.operand(2)?, channel);
    cx.output(&full, y * scale + bias)
}

fn group(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let dims = cx.dims(x);
    let groups: u64 = cx.attribute("num_groups")?;
    if dims.len() < 2 || groups == 0 || !dims[1].is_multiple_of(groups) {
        return malformed("the channels are no groups of one size");
    }
    let full = [&[dims[0], groups, dims[1] / groups], &dims[2..]].concat();
    let axes: Vec<usize> = (2..full.len()).collect();
    let grouped = cx.program.view(x, &full);
    let epsilon: f32 = cx.attribute("epsilon")?;
    let element = cx.element(grouped);
    let (y, _) = standardised(cx, &full, &axes, element, epsilon.into());
    let at = vars(&full);
    let channel = at[1].times((dims[1] / groups) as i64).plus(&at[2]);
    let [scale, bias] = [1, 2].map(|slot| {
        let id = cx.operand(slot)?;
        // Before opset 21 there is one for each group.
        let at = if cx.dims(id) == [groups] {
            at[1].clone()
        } else {
            channel.clone()
        };
        Ok::<_, Reason>(cx.load(id, vec![at]))
    });
    let y = y * scale? + bias?;
    let y = cx.map(&full, y);
    Ok(vec![Some(cx.program.view(y, &dims))])
}

fn mean_variance(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let full = cx.dims(x);
    let axes = match cx.given::<&[i64]>("axes") {
        Some(axes) => axes.to_vec(),
        None => vec![0, 2, 3],
    };
    let axes = axes.into_iter().map(|axis| cx.axis_of(axis, full.len()));
    let mut axes = axes.collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    let element = cx.element(x);
    let (y, _) = standardised(cx, &full, &axes, element, 1e-9);
    cx.output(&full, y)
}

fn length(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let (full, axis) = (cx.dims(x), cx.axis(x)?);
    let element = cx.element(x);
    let p: i64 = cx.attribute("p")?;
    let body = match p {
        1 => element.clone().abs(),
        2 => element.clone().square(),
        _ => return Err(Reason::Form("LpNormalization with p other than 1 and 2")),
    };
    let sum = cx.reduced(Fold::Sum, &full, &[axis], body);
    let sum = cx.program.broadcast(sum, &full);
    let norm = if p == 2 { sum.sqrt() } else { sum };
    // The standard says nothing of vectors of length 0; ONNX Runtime returns zeros.
    let zero = element.like(0.0);
    let y = norm
        .clone()
        .equals(zero.clone())
        .select(zero, element / norm);
    cx.output(&full, y)
}

fn local_response(cx: &mut RuleContext<'_>) -> Result<Outputs, Reason> {
    let x = cx.operand(0)?;
    let dims = cx.dims(x);
    let size: i64 = cx.attribute("size")?;
    let [alpha, beta, bias] = ["alpha", "beta", "bias"].map(|name| cx.attribute::<f32>(name));
    let (alpha, beta, bias) = (f64::from(alpha?), f64::from(beta?), f64::from(bias?));
    let at = vars(&dims);
    let sum = cx.fold_over(Fold::Sum, &[size], |cx, j| {
        let mut from: Vec<Index> = at.clone();
        from[1] = at[1].plus(&j[0]).offset(-((size - 1) / 2));
        let inside = Formula::within(from[1].clone(), 0, dims[1] as i64);
        let square = cx.load(x, from).square();
        let zero = square.like(0.0);
        inside.select(square, zero)
    });
    let base = sum * (alpha / size as f64) + bias;
    let power = base.like(beta);
    let element = cx.element(x);
    cx.output(
        &dims,
        element / base.binary(crate::expr::Binary::Pow, power),
    )
}
