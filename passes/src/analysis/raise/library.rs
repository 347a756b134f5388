//! The pattern library: composites as exporters decompose them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Serialize;

use super::formula::{self, FormulaError};
use super::pattern::Pattern;

/// The kinds of composites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `(x - mean) / sqrt(var + eps)` over each vector.
    LayerNorm,
    /// The same over groups of channels.
    GroupNorm,
    /// The same over each channel of each image.
    InstanceNorm,
    /// `x / sqrt(mean(x^2) + eps)`.
    RmsNorm,
    /// `x / ||x||`.
    L2Norm,
    /// `x * Phi(x)`.
    Gelu,
    /// `x * sigmoid(x)`, with or without a factor in the sigmoid.
    Silu,
    /// `x * clip(x + 3, 0, 6) / 6`.
    HardSwish,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// Data multiplied with a sigmoid of other data, as in squeeze-excite.
    SigmoidGate,
    /// Softmax of scores times values.
    Attention,
    /// A constant factor per channel before a residual sum.
    LayerScale,
}

impl Kind {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LayerNorm => "layer norm",
            Kind::GroupNorm => "group norm",
            Kind::InstanceNorm => "instance norm",
            Kind::RmsNorm => "RMS norm",
            Kind::L2Norm => "L2 norm",
            Kind::Gelu => "GELU",
            Kind::Silu => "SiLU",
            Kind::HardSwish => "hard swish",
            Kind::Mish => "Mish",
            Kind::SigmoidGate => "sigmoid gate",
            Kind::Attention => "attention",
            Kind::LayerScale => "layer scale",
        }
    }

    /// Whether it scales by a statistic of its input.
    pub fn is_norm(self) -> bool {
        use Kind::{GroupNorm, InstanceNorm, L2Norm, LayerNorm, RmsNorm};
        matches!(
            self,
            LayerNorm | GroupNorm | InstanceNorm | RmsNorm | L2Norm
        )
    }
}

/// The single operator of a composite. Attention is recognised by its projections instead.
pub const OPERATORS: &[(&str, Kind)] = &[
    ("Gelu", Kind::Gelu),
    ("GroupNormalization", Kind::GroupNorm),
    ("HardSwish", Kind::HardSwish),
    ("InstanceNormalization", Kind::InstanceNorm),
    ("LayerNormalization", Kind::LayerNorm),
    ("LpNormalization", Kind::L2Norm),
    ("Mish", Kind::Mish),
    ("RMSNormalization", Kind::RmsNorm),
    ("Swish", Kind::Silu),
];

/// The formulas. `x` is the input of a composite.
const FORMULAS: &str = "
    mean(x)     = ReduceMean(x, _)
    square(x)   = Pow(x, 2) | Mul(x, x)
    centred(x)  = Sub(x, mean(x))
    root(x)     = Sqrt(x) | Pow(x, 0.5)
    over(x, y)  = Div(x, root(y)) | Mul(x, Reciprocal(root(y))) | Mul(x, Pow(y, -0.5)) | Mul(x, Div(1, root(y)))
    power(x)    = Add(mean(square(x)), $) | mean(square(x))

    layer-norm  = over(centred(x), power(centred(x)))
    group-norm  = Reshape(InstanceNormalization(Reshape(x, _), _, _), _)
    rms-norm    = over(x, power(x))
    length(x)   = ReduceL2(x, _) | Sqrt(ReduceSum(square(x), _)) | Sqrt(ReduceSumSquare(x, _))
    no-zero(x)  = x | Clip(x, _, _) | Max(x, $) | Add(x, $)
    spread(x)   = x | Expand(x, _)
    l2-norm     = Div(x, spread(no-zero(length(x))))

    tilted(x)   = Div(x, 1.4142135) | Mul(x, 0.70710678)
    twice(x)    = Add(Erf(tilted(x)), 1)
    cube(x)     = Pow(x, 3) | Mul(square(x), x) | Mul(x, square(x))
    bent(x)     = Mul(Add(x, Mul(cube(x), 0.044715)), 0.7978845)
                | Mul(x, Add(Mul(Mul(square(x), 0.044715), 0.7978845), 0.7978845))
    twice-tanh(x) = Add(Tanh(bent(x)), 1)
    halved(x, y)  = Mul(Mul(x, y), 0.5) | Mul(Mul(x, 0.5), y) | Mul(x, Mul(y, 0.5)) | Div(Mul(x, y), 2)
    gelu        = halved(x, twice(x)) | halved(x, twice-tanh(x))

    silu        = Mul(x, Sigmoid(x)) | Mul(x, Sigmoid(Mul(x, $))) | Div(x, Add(Exp(Neg(x)), 1))
    above(x)    = Clip(Add(x, 3), 0, 6) | Min(Max(Add(x, 3), 0), 6)
    hard-swish  = Mul(x, HardSigmoid(x)) | Div(Mul(x, above(x)), 6) | Mul(Mul(x, above(x)), 0.1666667)
                | Mul(x, Div(above(x), 6)) | Mul(x, Mul(above(x), 0.1666667))
    mish        = Mul(x, Tanh(Softplus(x))) | Mul(x, Tanh(Log(Add(Exp(x), 1))))
    sigmoid-gate = Mul(x, Sigmoid(y)) | Mul(x, HardSigmoid(y)) | Mul(x, Div(Clip(Add(y, 3), 0, 6), 6))
    layer-scale = Add(y, Mul(x, $scale))
";

/// Definitions by name, in the order in which they are tried.
const KINDS: &[(&str, Kind)] = &[
    ("layer-norm", Kind::LayerNorm),
    ("group-norm", Kind::GroupNorm),
    ("rms-norm", Kind::RmsNorm),
    ("l2-norm", Kind::L2Norm),
    ("gelu", Kind::Gelu),
    ("silu", Kind::Silu),
    ("hard-swish", Kind::HardSwish),
    ("mish", Kind::Mish),
    ("sigmoid-gate", Kind::SigmoidGate),
    ("layer-scale", Kind::LayerScale),
];

/// One entry of the library.
pub struct Entry {
    /// What it recognises.
    pub kind: Kind,
    /// Its formula.
    pub pattern: Pattern,
}

/// The library, indexed by the last operator of formulas.
pub struct Library {
    entries: Vec<Entry>,
    by_root: BTreeMap<String, Vec<usize>>,
}

// A test parses the built-in formulas.
static LIBRARY: LazyLock<Library> =
    LazyLock::new(|| Library::read(FORMULAS).expect("the formulas are well formed"));

impl Library {
    /// The built-in library.
    pub fn standard() -> &'static Library {
        &LIBRARY
    }

    fn read(text: &str) -> Result<Self, FormulaError> {
        let mut formulas: BTreeMap<String, Pattern> = formula::read(text)?.into_iter().collect();
        let mut entries = Vec::new();
        let mut by_root: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (name, kind) in KINDS {
            let Some(pattern) = formulas.remove(*name) else {
                continue;
            };
            let mut roots = pattern.roots();
            roots.sort_unstable();
            roots.dedup();
            for root in roots {
                by_root
                    .entry(root.to_owned())
                    .or_default()
                    .push(entries.len());
            }
            entries.push(Entry {
                kind: *kind,
                pattern,
            });
        }
        Ok(Library { entries, by_root })
    }

    /// The entries that an operator can be the last of.
    pub fn ending_in(&self, op_type: &str) -> impl Iterator<Item = &Entry> {
        let indices = self.by_root.get(op_type).into_iter().flatten();
        indices.map(|&index| &self.entries[index])
    }
}
