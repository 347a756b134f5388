//! Accuracy and calibration.
//!
//! The *confidence* of a prediction is the probability of the predicted class. The expected calibration error
//! sorts predictions into 15 bins of confidence of equal width, `(i/15, (i+1)/15]`, and is the mean over all
//! images of their bin's |accuracy - mean confidence|.
//!
//! The negative log-likelihood of one image is the loss that belongs to the kind of probability:
//! softmax: `-ln p(true class)`; sigmoid: the binary cross-entropies of all classes, added up. The two do
//! not compare.

use serde::Serialize;

use crate::Probability;

/// Number of bins of confidence.
const BINS: usize = 15;

/// A prediction, reduced to what the metrics need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prediction {
    /// The predicted class.
    pub class: usize,
    /// Its logit.
    pub logit: f64,
    /// Its probability.
    pub confidence: f64,
    /// Number of classes with a higher logit than the true class.
    pub rank: usize,
    /// Negative log-likelihood of the true class.
    pub surprise: f64,
}

impl Prediction {
    /// Ties rank by class index.
    pub fn of(logits: &[f32], truth: usize, probability: Probability) -> Option<Self> {
        let higher = |a: usize, b: usize| logits[a] > logits[b] || logits[a] == logits[b] && a < b;
        let class = (0..logits.len()).reduce(|best, c| if higher(c, best) { c } else { best })?;
        let rank = (0..logits.len()).filter(|&c| higher(c, truth)).count();
        Some(Prediction {
            class,
            logit: f64::from(logits[class]),
            confidence: probability.of_logits(logits)[class],
            rank,
            surprise: surprise(logits, truth, probability),
        })
    }

    /// Whether the predicted class is the true one.
    pub fn is_right(&self) -> bool {
        self.rank == 0
    }
}

fn surprise(logits: &[f32], truth: usize, probability: Probability) -> f64 {
    let logits = || logits.iter().map(|z| f64::from(*z));
    let of_truth = logits().nth(truth).unwrap_or(f64::NEG_INFINITY);
    match probability {
        Probability::Softmax => {
            let largest = logits().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits().map(|z| (z - largest).exp()).sum();
            largest + sum.ln() - of_truth
        }
        // -ln(1 - sigmoid(z)) = ln(1 + e^z), and -ln sigmoid(z) is less by z.
        Probability::Sigmoid => {
            let off: f64 = logits()
                .map(|z| z.max(0.0) + (-z.abs()).exp().ln_1p())
                .sum();
            off - of_truth
        }
    }
}

/// Calibration of the confidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Expected calibration error over 15 bins of equal width.
    pub ece: f64,
    /// Mean probability of the predicted class.
    pub mean_confidence: f64,
    /// Mean negative log-likelihood: of softmax `-ln p(true class)`, of sigmoids the binary cross-entropies
    /// of all classes added up.
    pub nll: f64,
    /// The bins, empty ones too.
    pub bins: Vec<Bin>,
}

/// The predictions whose confidence is in `(low, high]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// Lower edge, exclusive except for 0.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Number of predictions.
    pub images: usize,
    /// Their accuracy; `null` if empty.
    pub accuracy: Option<f64>,
    /// Their mean confidence; `null` if empty.
    pub confidence: Option<f64>,
}

impl Reliability {
    pub(super) fn of(predictions: &[Prediction]) -> Self {
        let bins: Vec<Bin> = (0..BINS).map(|i| bin(predictions, i)).collect();
        let gaps = bins.iter().filter_map(|bin| {
            let gap = (bin.accuracy? - bin.confidence?).abs();
            Some(gap * bin.images as f64)
        });
        let count = predictions.len().max(1) as f64;
        let mean =
            |value: fn(&Prediction) -> f64| predictions.iter().map(value).sum::<f64>() / count;
        Reliability {
            ece: gaps.sum::<f64>() / count,
            mean_confidence: mean(|p| p.confidence),
            nll: mean(|p| p.surprise),
            bins,
        }
    }
}

fn bin(predictions: &[Prediction], index: usize) -> Bin {
    let place = |p: &&Prediction| {
        let bin = (p.confidence * BINS as f64).ceil() as usize;
        bin.clamp(1, BINS) - 1 == index
    };
    let inside: Vec<&Prediction> = predictions.iter().filter(place).collect();
    let images = inside.len();
    let mean = |sum: f64| (images > 0).then(|| sum / images as f64);
    Bin {
        low: index as f64 / BINS as f64,
        high: (index + 1) as f64 / BINS as f64,
        images,
        accuracy: mean(inside.iter().filter(|p| p.is_right()).count() as f64),
        confidence: mean(inside.iter().map(|p| p.confidence).sum()),
    }
}

/// The share of images whose true class is among the `k` with the highest logits.
pub(super) fn top(k: usize, predictions: &[Prediction]) -> f64 {
    let among = predictions.iter().filter(|p| p.rank < k).count();
    among as f64 / predictions.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    fn prediction(confidence: f64, right: bool) -> Prediction {
        Prediction {
            class: 0,
            logit: 0.0,
            confidence,
            rank: usize::from(!right),
            surprise: 1.0,
        }
    }

    #[test]
    fn a_prediction_ranks_the_true_class() {
        let softmax = |truth| Prediction::of(&[1.0, 3.0, 2.0, 2.0], truth, Probability::Softmax);
        let ranks = [0, 1, 2, 3].map(|truth| softmax(truth).unwrap().rank);
        assert_eq!(ranks, [3, 0, 1, 2]);
        let found = softmax(1).unwrap();
        assert_eq!((found.class, found.logit), (1, 3.0));
        let sum = 1f64.exp() + 3f64.exp() + 2.0 * 2f64.exp();
        assert!(near(found.confidence, 3f64.exp() / sum));
        assert!(near(found.surprise, -(3f64.exp() / sum).ln()));
        assert!(Prediction::of(&[], 0, Probability::Softmax).is_none());
    }

    #[test]
    fn sigmoids_are_surprised_by_every_class() {
        let found = Prediction::of(&[0.0, 2.0, -800.0], 1, Probability::Sigmoid).unwrap();
        let expected = 2f64.ln() + (1.0 + (-2f64).exp()).ln();
        assert!(near(found.surprise, expected), "{}", found.surprise);
    }

    #[test]
    fn calibration_error_is_that_of_a_hand_computed_case() {
        // (14/15, 1]: three of four right at 0.95; (7/15, 8/15]: one of two right at 0.5; the lowest: none.
        let mut predictions = vec![prediction(0.95, true); 3];
        predictions.push(prediction(0.95, false));
        predictions.extend([prediction(0.5, true), prediction(0.5, false)]);
        predictions.extend([prediction(0.0, false), prediction(1.0 / 15.0, false)]);
        let found = Reliability::of(&predictions);
        let expected = (4.0 * 0.2 + 2.0 * 0.0 + 2.0 * (0.5 / 15.0)) / 8.0;
        assert!(near(found.ece, expected), "{} {expected}", found.ece);
        let images: Vec<usize> = found.bins.iter().map(|b| b.images).collect();
        assert_eq!(images, [2, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(found.bins[7].accuracy, Some(0.5));
        assert_eq!(found.bins[1].confidence, None);
        assert!(near(found.mean_confidence, (3.8 + 1.0 + 1.0 / 15.0) / 8.0));
    }

    #[test]
    fn top_k_counts_ranks() {
        let ranks = [0, 0, 1, 4, 7].map(|rank| Prediction {
            rank,
            ..prediction(0.5, true)
        });
        assert_eq!([top(1, &ranks), top(5, &ranks)], [0.4, 0.8]);
    }
}
