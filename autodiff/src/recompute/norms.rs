//! Means and deviations of norms.

use bcosc_ir::views::{AxesOp, BatchNorm};
use bcosc_ir::{DataType, Operand, Value};

use crate::context::RuleContext;
use bcosc_passes::Reason;
use bcosc_passes::analysis::weights;

/// What a deviation is the root of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Centre {
    /// The variance.
    Mean,
    /// The mean square.
    Zero,
}

/// A norm: which elements it is over, and how.
#[derive(Clone)]
pub(crate) struct Norm {
    pub axes: Vec<i64>,
    pub centre: Centre,
    /// Added to the variance.
    pub epsilon: f64,
}

/// What a norm computes first.
#[derive(Clone, Copy)]
pub(crate) struct Statistics {
    /// x less its mean, where that is subtracted.
    pub centred: Operand,
    pub deviation: Operand,
}

impl Norm {
    /// The statistics of x, a value of the type of `like`.
    pub fn statistics(&self, cx: &mut RuleContext<'_>, x: Operand, like: Value) -> Statistics {
        let centred = match self.centre {
            Centre::Mean => {
                let mean = cx.reduce(AxesOp::ReduceMean, x, &self.axes);
                cx.sub(x, mean)
            }
            Centre::Zero => x,
        };
        let squares = cx.mul(centred, centred);
        let variance = cx.reduce(AxesOp::ReduceMean, squares, &self.axes);
        let epsilon = cx.number(like, self.epsilon);
        let sum = cx.add(variance, epsilon);
        let deviation = cx.op("Sqrt", &[sum]);
        Statistics { centred, deviation }
    }

    /// A norm over the last axes.
    pub fn of_vectors(cx: &RuleContext<'_>, centre: Centre) -> Result<Self, Reason> {
        let rank = cx.dims(cx.operand(0)?)?.len();
        let first = cx.axis(cx.attribute("axis")?, rank)?;
        Ok(Norm {
            axes: (first as i64..rank as i64).collect(),
            centre,
            epsilon: epsilon(cx)?,
        })
    }

    /// A norm of each channel of each image.
    pub fn of_channels(cx: &RuleContext<'_>) -> Result<Self, Reason> {
        let rank = cx.dims(cx.operand(0)?)?.len() as i64;
        Ok(Norm {
            axes: (2..rank).collect(),
            centre: Centre::Mean,
            epsilon: epsilon(cx)?,
        })
    }

    /// A norm of the rows that groups of channels are.
    pub fn of_rows(cx: &RuleContext<'_>) -> Result<Self, Reason> {
        Ok(Norm {
            axes: vec![2],
            centre: Centre::Mean,
            epsilon: epsilon(cx)?,
        })
    }

    /// `MeanVarianceNormalization`. 1e-9 is added to the deviation; a variance of 1e-18 is the same where that
    /// counts, which is at a deviation of 0.
    pub fn of_elements(cx: &RuleContext<'_>) -> Result<Self, Reason> {
        Ok(Norm {
            axes: cx.attribute::<&[i64]>("axes")?.to_vec(),
            centre: Centre::Mean,
            epsilon: 1e-18,
        })
    }
}

/// The epsilon of a norm.
fn epsilon(cx: &RuleContext<'_>) -> Result<f64, Reason> {
    cx.attribute::<f32>("epsilon").map(f64::from)
}

/// Groups of channels as rows: `[batch, groups, elements]`.
pub(crate) fn rows(cx: &mut RuleContext<'_>, x: Operand) -> Result<Operand, Reason> {
    let groups = cx.attribute("num_groups")?;
    Ok(cx.reshape(x, &[0, groups, -1]))
}

/// Up to opset 20, a `GroupNormalization` has one scale per group.
pub(crate) fn scales_groups(cx: &RuleContext<'_>) -> bool {
    cx.opset < 21
}

/// One number per channel, in the shape that broadcasts over a value.
pub(crate) fn per_channel(
    cx: &mut RuleContext<'_>,
    numbers: Operand,
    like: Value,
) -> Result<Operand, Reason> {
    let behind = cx.dims(like)?.len().saturating_sub(2);
    let mut sizes = vec![-1];
    sizes.resize(1 + behind, 1);
    Ok(cx.reshape(numbers, &sizes))
}

/// The length of vectors that `LpNormalization` divides by.
pub(crate) fn length(cx: &mut RuleContext<'_>, p: i64) -> Result<Operand, Reason> {
    let (x, axis) = (cx.operand(0)?, cx.attribute("axis")?);
    Ok(match p {
        2 => cx.reduce(AxesOp::ReduceL2, x.into(), &[axis]),
        _ => {
            let sizes = cx.op("Abs", &[x.into()]);
            cx.reduce(AxesOp::ReduceSum, sizes, &[axis])
        }
    })
}

/// What a batch norm multiplies each channel by.
pub(crate) enum Factor {
    One,
    Of(Operand),
}

impl Factor {
    /// A constant where the operands are.
    pub fn of(cx: &mut RuleContext<'_>, norm: &BatchNorm) -> Self {
        match constant_factor(cx, norm) {
            // A norm that was put in for its statistics may not scale at all.
            Some(factor) if factor.iter().all(|&x| is_one(cx.dtype(norm.x), x)) => Factor::One,
            Some(factor) => {
                let dims = [factor.len() as u64];
                let factor = weights::tensor(cx.dtype(norm.scale), &dims, &factor);
                Factor::Of(cx.patch.parameter("factor", factor))
            }
            None => {
                let deviation = batch_deviation(cx, norm);
                Factor::Of(cx.div(norm.scale.into(), deviation))
            }
        }
    }
}

/// The deviation of a batch norm, per channel.
pub(crate) fn batch_deviation(cx: &mut RuleContext<'_>, norm: &BatchNorm) -> Operand {
    let epsilon = cx.number(norm.var, norm.epsilon.into());
    let sum = cx.add(norm.var.into(), epsilon);
    cx.op("Sqrt", &[sum])
}

fn is_one(dtype: DataType, x: f64) -> bool {
    match dtype {
        DataType::Double => x == 1.0,
        _ => x as f32 == 1.0,
    }
}

fn constant_factor(cx: &RuleContext<'_>, norm: &BatchNorm) -> Option<Vec<f64>> {
    let elements = |value| cx.graph.constant(value)?.to_f64s().ok();
    let (scale, var) = (elements(norm.scale)?, elements(norm.var)?);
    let epsilon = f64::from(norm.epsilon);
    let pairs = scale.iter().zip(&var);
    Some(pairs.map(|(g, v)| g / (v + epsilon).sqrt()).collect())
}
