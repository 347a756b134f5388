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

use super::step::{Found, Step};
use bcosc_passes::Reason;
use bcosc_passes::analysis::scalars::scalar;

/// Below this magnitude a quotient is taken for its limit at 0.
const NEAR_ZERO: f64 = 1e-30;

pub(super) fn relu(step: &mut Step<'_>) -> Found {
    let (dy, zero) = (step.dy()?, step.number(step.y(), 0.0));
    let open = step.op("Greater", &[step.y().into(), zero]);
    Ok(vec![(0, step.op("Where", &[open, dy, zero]))])
}

pub(super) fn leaky_relu(step: &mut Step<'_>) -> Found {
    let alpha = f64::from(step.op.float("alpha", 0.01));
    let slope = step.number(step.y(), alpha);
    sloped(step, slope)
}

pub(super) fn prelu(step: &mut Step<'_>) -> Found {
    let slope = step.operand(1)?;
    sloped(step, slope.into())
}

/// x where it is positive, else the slope times x.
fn sloped(step: &mut Step<'_>, slope: Operand) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let zero = step.number(x, 0.0);
    let positive = step.op("Greater", &[x.into(), zero]);
    let scaled = step.mul(dy, slope);
    Ok(vec![(0, step.op("Where", &[positive, dy, scaled]))])
}

pub(super) fn hard_swish(step: &mut Step<'_>) -> Found {
    let x = step.operand(0)?;
    let numbers = [
        Attribute::float("alpha", 1.0 / 6.0),
        Attribute::float("beta", 0.5),
    ];
    let gate = step.op_with("HardSigmoid", &[x.into()], numbers);
    scaled(step, gate)
}

pub(super) fn swish(step: &mut Step<'_>) -> Found {
    let x = step.operand(0)?;
    let alpha = step.op.float("alpha", 1.0);
    let mut inner = Operand::Old(x);
    if alpha != 1.0 {
        let alpha = step.number(x, alpha.into());
        inner = step.mul(inner, alpha);
    }
    let gate = step.op("Sigmoid", &[inner]);
    scaled(step, gate)
}

pub(super) fn mish(step: &mut Step<'_>) -> Found {
    let x = step.operand(0)?;
    let inner = step.op("Softplus", &[x.into()]);
    let gate = step.op("Tanh", &[inner]);
    scaled(step, gate)
}

pub(super) fn gelu(step: &mut Step<'_>) -> Found {
    let x = step.operand(0)?;
    let saturating = match step.op.string("approximate").unwrap_or("none") {
        "tanh" => {
            let square = step.mul(x.into(), x.into());
            let cube = step.mul(square, x.into());
            let small = step.number(x, 0.044_715);
            let small = step.mul(cube, small);
            let sum = step.op("Add", &[x.into(), small]);
            let steep = step.number(x, (2.0 / std::f64::consts::PI).sqrt());
            let inner = step.mul(sum, steep);
            step.op("Tanh", &[inner])
        }
        _ => {
            let narrow = step.number(x, std::f64::consts::FRAC_1_SQRT_2);
            let inner = step.mul(x.into(), narrow);
            step.op("Erf", &[inner])
        }
    };
    let [one, half] = [1.0, 0.5].map(|n| step.number(x, n));
    let sum = step.op("Add", &[saturating, one]);
    let gate = step.mul(sum, half);
    scaled(step, gate)
}

pub(super) fn softsign(step: &mut Step<'_>) -> Found {
    let (dy, x) = (step.dy()?, step.operand(0)?);
    let size = step.op("Abs", &[x.into()]);
    let one = step.number(x, 1.0);
    let by = step.op("Add", &[size, one]);
    Ok(vec![(0, step.div(dy, by))])
}

pub(super) fn elu(step: &mut Step<'_>) -> Found {
    let alpha = step.op.float("alpha", 1.0);
    quotient(step, alpha.into())
}

pub(super) fn celu(step: &mut Step<'_>) -> Found {
    quotient(step, 1.0)
}

pub(super) fn selu(step: &mut Step<'_>) -> Found {
    let (alpha, gamma) = (1.673_263_2, 1.050_701);
    let limit = step.op.float("alpha", alpha) * step.op.float("gamma", gamma);
    quotient(step, limit.into())
}

/// `Clip` around 0, and `Tanh`: x itself close to 0.
pub(super) fn bounded(step: &mut Step<'_>) -> Found {
    quotient(step, 1.0)
}

/// Gates that are closed around 0.
pub(super) fn vanishing(step: &mut Step<'_>) -> Found {
    quotient(step, 0.0)
}

/// `Pow` with a whole exponent: x^(e-1).
pub(super) fn power(step: &mut Step<'_>) -> Found {
    let (x, exponent) = (step.operand(0)?, step.operand(1)?);
    let found = scalar(step.graph, exponent);
    let exponent =
        found.ok_or_else(|| Reason::NotConstant(step.graph.value_name(exponent).to_owned()))?;
    let less = step.number(x, exponent - 1.0);
    let gate = step.op("Pow", &[x.into(), less]);
    scaled(step, gate)
}

/// `LRN`: x times a power of the sum of its neighbours' squares, `bias^-beta` where all are 0.
pub(super) fn scaled_by_neighbours(step: &mut Step<'_>) -> Found {
    let bias = f64::from(step.op.float("bias", 1.0));
    let beta = f64::from(step.op.float("beta", 0.75));
    quotient(step, bias.powf(-beta))
}

fn scaled(step: &mut Step<'_>, gate: Operand) -> Found {
    let dy = step.dy()?;
    Ok(vec![(0, step.mul(dy, gate))])
}

/// f(x) / x, with its limit where x is 0.
fn quotient(step: &mut Step<'_>, limit: f64) -> Found {
    let (x, y) = (step.operand(0)?, step.y());
    let [tiny, one, limit] = [NEAR_ZERO, 1.0, limit].map(|n| step.number(x, n));
    let size = step.op("Abs", &[x.into()]);
    let vanishes = step.op("Less", &[size, tiny]);
    let safe = step.op("Where", &[vanishes, one, x.into()]);
    let ratio = step.div(y.into(), safe);
    let gate = step.op("Where", &[vanishes, limit, ratio]);
    scaled(step, gate)
}
