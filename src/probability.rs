//! From logits to probabilities.

use serde::Serialize;

/// How a logit becomes a probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Probability {
    /// `e^z / (sum over classes of e^z)`: trained with cross-entropy.
    Softmax,
    /// `1 / (1 + e^-z)` per class: trained with binary cross-entropy, as B-cos models are.
    Sigmoid,
}

impl Probability {
    /// The given kind, or by default the one that a model with this logit bias was trained with.
    #[cfg(feature = "vision")]
    pub(super) fn of(wanted: Option<Self>, logit_bias: f64) -> Option<Self> {
        let usual = match logit_bias {
            0.0 => Probability::Softmax,
            _ => Probability::Sigmoid,
        };
        Some(wanted.unwrap_or(usual))
    }

    /// The probability of each class.
    pub fn of_logits(self, logits: &[f32]) -> Vec<f64> {
        match self {
            Probability::Sigmoid => logits.iter().map(|z| sigmoid(f64::from(*z))).collect(),
            Probability::Softmax => {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let parts = logits.iter().map(|z| f64::from(z - largest).exp());
                let sum: f64 = parts.clone().sum();
                parts.map(|part| part / sum).collect()
            }
        }
    }
}

/// `1 / (1 + e^-z)`.
pub(crate) fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_large_logits_are_finite() {
        assert_eq!(
            Probability::Softmax.of_logits(&[1000.0, 1000.0, -1000.0]),
            [0.5, 0.5, 0.0]
        );
        let sigmoids = Probability::Sigmoid.of_logits(&[0.0, 1000.0, -1000.0]);
        assert_eq!(sigmoids, [0.5, 1.0, 0.0]);
    }
}
