//! Gates: g(x) of activations f(x) = g(x) x.
//!
//! ```text
//! HardSwish  HardSigmoid(x)       Gelu        (1 + erf(x / sqrt 2)) / 2
//! Swish      Sigmoid(alpha x)     Gelu tanh   (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
//! Mish       tanh(Softplus(x))
//! ```

use bcosc_ir::{Attribute, Operand};

use crate::context::RuleContext;
use bcosc_passes::Reason;

/// The factor of x^3 in the approximation of `Gelu` by tanh.
pub(crate) const CUBIC: f64 = 0.044_715;

/// The factor within that tanh.
pub(crate) fn steepness() -> f64 {
    (2.0 / std::f64::consts::PI).sqrt()
}

pub(crate) fn hard_swish(cx: &mut RuleContext<'_>) -> Result<Operand, Reason> {
    let x = cx.operand(0)?;
    let numbers = [
        Attribute::float("alpha", 1.0 / 6.0),
        Attribute::float("beta", 0.5),
    ];
    Ok(cx.op_with("HardSigmoid", &[x.into()], numbers))
}

/// The gate, and what it is the sigmoid of.
pub(crate) fn swish(cx: &mut RuleContext<'_>) -> Result<(Operand, Operand), Reason> {
    let x = cx.operand(0)?;
    let alpha: f32 = cx.attribute("alpha")?;
    let mut inner = Operand::Old(x);
    if alpha != 1.0 {
        inner = cx.times(inner, alpha.into(), x);
    }
    Ok((cx.op("Sigmoid", &[inner]), inner))
}

pub(crate) fn mish(cx: &mut RuleContext<'_>) -> Result<Operand, Reason> {
    let x = cx.operand(0)?;
    let inner = cx.op("Softplus", &[x.into()]);
    Ok(cx.op("Tanh", &[inner]))
}

/// The gate of a `Gelu`.
pub(crate) struct Gelu {
    pub gate: Operand,
    /// Its error function or tanh.
    pub saturating: Operand,
    /// The square of x, if it is the approximation by tanh.
    pub square: Option<Operand>,
}

impl Gelu {
    pub fn of(cx: &mut RuleContext<'_>) -> Result<Self, Reason> {
        let x = cx.operand(0)?;
        let (saturating, square) = match cx.attribute("approximate")? {
            "tanh" => {
                let square = cx.mul(x.into(), x.into());
                let cube = cx.mul(square, x.into());
                let small = cx.times(cube, CUBIC, x);
                let sum = cx.add(x.into(), small);
                let inner = cx.times(sum, steepness(), x);
                (cx.op("Tanh", &[inner]), Some(square))
            }
            _ => {
                let inner = cx.times(x.into(), std::f64::consts::FRAC_1_SQRT_2, x);
                (cx.op("Erf", &[inner]), None)
            }
        };
        let [one, half] = [1.0, 0.5].map(|n| cx.number(x, n));
        let sum = cx.add(saturating, one);
        Ok(Gelu {
            gate: cx.mul(sum, half),
            saturating,
            square,
        })
    }
}
