//! Mixup: each picture of a batch is mixed with the one before it, as torchvision does it.

use rand_distr::{Beta, Distribution};

use crate::vision::random::rng;

/// Purpose of random numbers: the share of mixup.
const MIXUP: u64 = 4;

/// The share of the pictures themselves in a batch: drawn from Beta(alpha, alpha).
pub(super) fn share(alpha: f64, seed: u64, epoch: u64, batch: u64) -> f64 {
    let rng = &mut rng(seed, &[MIXUP, epoch, batch]);
    // `alpha` is checked to be above 0.
    Beta::new(alpha, alpha).map_or(1.0, |beta| beta.sample(rng))
}

/// `share * x[i] + (1 - share) * x[i - 1]` for all rows of `length` numbers; before the first is the last.
pub(super) fn mix(rows: &mut [f32], length: usize, share: f64) {
    let count = rows.len().checked_div(length).unwrap_or(0);
    if count < 2 {
        return;
    }
    let [own, other] = [share as f32, (1.0 - share) as f32];
    let last = rows[(count - 1) * length..].to_vec();
    for i in (0..count).rev() {
        let (before, row) = rows.split_at_mut(i * length);
        let previous = match i {
            0 => &last[..],
            _ => &before[(i - 1) * length..],
        };
        for (x, previous) in row[..length].iter_mut().zip(previous) {
            *x = *x * own + previous * other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean 1/2 and variance 1/(8 alpha + 4).
    #[test]
    fn shares_are_of_the_beta_distribution() {
        for alpha in [0.2, 1.0, 4.0] {
            let drawn: Vec<f64> = (0..4000).map(|batch| share(alpha, 3, 1, batch)).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let square = |x: &f64| (x - mean).powi(2);
            let variance = drawn.iter().map(square).sum::<f64>() / drawn.len() as f64;
            assert!((mean - 0.5).abs() < 0.02, "{alpha}: {mean}");
            let expected = 1.0 / (8.0 * alpha + 4.0);
            assert!(
                (variance / expected - 1.0).abs() < 0.06,
                "{alpha}: {variance}"
            );
        }
    }

    #[test]
    fn a_single_picture_stays() {
        let mut row = [1.0, 2.0];
        mix(&mut row, 2, 0.3);
        assert_eq!(row, [1.0, 2.0]);
    }
}
