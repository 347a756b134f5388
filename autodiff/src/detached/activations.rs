//! Gates: f(x) is g(x) times x, and g is held fixed.
//!
//! ```text
//! Relu       x > 0                    Gelu        (1 + erf(x / sqrt 2)) / 2
//! LeakyRelu  1 or alpha               Gelu tanh   (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
//! HardSwish  HardSigmoid(x)           Swish       Sigmoid(alpha x)
//! Mish       tanh(Softplus(x))        Softsign    1 / (1 + |x|)
//! others     f(x) / x, at 0 its limit
//! ```

use bcosc_ir::{Attribute, Operand};

use crate::context::{Found, RuleContext};
use bcosc_passes::Reason;
use bcosc_passes::analysis::scalars::scalar;

/// Below this magnitude a quotient is taken for its limit at 0.
const NEAR_ZERO: f64 = 1e-30;

pub(crate) fn relu(cx: &mut RuleContext<'_>) -> Found {
    let (dy, zero) = (cx.dy()?, cx.number(cx.y(), 0.0));
    let open = cx.op("Greater", &[cx.y().into(), zero]);
    Ok(vec![(0, cx.op("Where", &[open, dy, zero]))])
}

pub(crate) fn leaky_relu(cx: &mut RuleContext<'_>) -> Found {
    let alpha = f64::from(cx.attribute::<f32>("alpha")?);
    let slope = cx.number(cx.y(), alpha);
    sloped(cx, slope)
}

pub(crate) fn prelu(cx: &mut RuleContext<'_>) -> Found {
    let slope = cx.operand(1)?;
    sloped(cx, slope.into())
}

/// x where it is positive, else the slope times x.
fn sloped(cx: &mut RuleContext<'_>, slope: Operand) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let zero = cx.number(x, 0.0);
    let positive = cx.op("Greater", &[x.into(), zero]);
    let scaled = cx.mul(dy, slope);
    Ok(vec![(0, cx.op("Where", &[positive, dy, scaled]))])
}

pub(crate) fn hard_swish(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let numbers = [
        Attribute::float("alpha", 1.0 / 6.0),
        Attribute::float("beta", 0.5),
    ];
    let gate = cx.op_with("HardSigmoid", &[x.into()], numbers);
    scaled(cx, gate)
}

pub(crate) fn swish(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let alpha: f32 = cx.attribute("alpha")?;
    let mut inner = Operand::Old(x);
    if alpha != 1.0 {
        let alpha = cx.number(x, alpha.into());
        inner = cx.mul(inner, alpha);
    }
    let gate = cx.op("Sigmoid", &[inner]);
    scaled(cx, gate)
}

pub(crate) fn mish(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let inner = cx.op("Softplus", &[x.into()]);
    let gate = cx.op("Tanh", &[inner]);
    scaled(cx, gate)
}

pub(crate) fn gelu(cx: &mut RuleContext<'_>) -> Found {
    let x = cx.operand(0)?;
    let saturating = match cx.attribute("approximate")? {
        "tanh" => {
            let square = cx.mul(x.into(), x.into());
            let cube = cx.mul(square, x.into());
            let small = cx.number(x, 0.044_715);
            let small = cx.mul(cube, small);
            let sum = cx.op("Add", &[x.into(), small]);
            let steep = cx.number(x, (2.0 / std::f64::consts::PI).sqrt());
            let inner = cx.mul(sum, steep);
            cx.op("Tanh", &[inner])
        }
        _ => {
            let narrow = cx.number(x, std::f64::consts::FRAC_1_SQRT_2);
            let inner = cx.mul(x.into(), narrow);
            cx.op("Erf", &[inner])
        }
    };
    let [one, half] = [1.0, 0.5].map(|n| cx.number(x, n));
    let sum = cx.op("Add", &[saturating, one]);
    let gate = cx.mul(sum, half);
    scaled(cx, gate)
}

pub(crate) fn softsign(cx: &mut RuleContext<'_>) -> Found {
    let (dy, x) = (cx.dy()?, cx.operand(0)?);
    let size = cx.op("Abs", &[x.into()]);
    let one = cx.number(x, 1.0);
    let by = cx.op("Add", &[size, one]);
    Ok(vec![(0, cx.div(dy, by))])
}

pub(crate) fn elu(cx: &mut RuleContext<'_>) -> Found {
    let alpha: f32 = cx.attribute("alpha")?;
    quotient(cx, alpha.into())
}

pub(crate) fn celu(cx: &mut RuleContext<'_>) -> Found {
    quotient(cx, 1.0)
}

pub(crate) fn selu(cx: &mut RuleContext<'_>) -> Found {
    let limit = cx.attribute::<f32>("alpha")? * cx.attribute::<f32>("gamma")?;
    quotient(cx, limit.into())
}

/// `Clip` around 0, and `Tanh`: x itself close to 0.
pub(crate) fn bounded(cx: &mut RuleContext<'_>) -> Found {
    quotient(cx, 1.0)
}

/// Gates that are closed around 0.
pub(crate) fn vanishing(cx: &mut RuleContext<'_>) -> Found {
    quotient(cx, 0.0)
}

/// `Pow` with a whole exponent: x^(e-1).
pub(crate) fn power(cx: &mut RuleContext<'_>) -> Found {
    let (x, exponent) = (cx.operand(0)?, cx.operand(1)?);
    let found = scalar(cx.graph, exponent);
    let exponent =
        found.ok_or_else(|| Reason::NotConstant(cx.graph.value_name(exponent).to_owned()))?;
    let less = cx.number(x, exponent - 1.0);
    let gate = cx.op("Pow", &[x.into(), less]);
    scaled(cx, gate)
}

/// `LRN`: x times a power of the sum of its neighbours' squares, `bias^-beta` where all are 0.
pub(crate) fn scaled_by_neighbours(cx: &mut RuleContext<'_>) -> Found {
    let bias = f64::from(cx.attribute::<f32>("bias")?);
    let beta = f64::from(cx.attribute::<f32>("beta")?);
    quotient(cx, bias.powf(-beta))
}

fn scaled(cx: &mut RuleContext<'_>, gate: Operand) -> Found {
    let dy = cx.dy()?;
    Ok(vec![(0, cx.mul(dy, gate))])
}

/// f(x) / x, with its limit where x is 0.
fn quotient(cx: &mut RuleContext<'_>, limit: f64) -> Found {
    let (x, y) = (cx.operand(0)?, cx.y());
    let [tiny, one, limit] = [NEAR_ZERO, 1.0, limit].map(|n| cx.number(x, n));
    let size = cx.op("Abs", &[x.into()]);
    let vanishes = cx.op("Less", &[size, tiny]);
    let safe = cx.op("Where", &[vanishes, one, x.into()]);
    let ratio = cx.div(y.into(), safe);
    let gate = cx.op("Where", &[vanishes, limit, ratio]);
    scaled(cx, gate)
}
