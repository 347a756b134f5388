//! Pixel deletion and insertion: does the prediction depend on the pixels with large contributions?
//!
//! The pixels of a picture are sorted by what they contribute to the predicted class, most first, and changed
//! in 20 steps of equally many pixels, all channels of a pixel at once:
//!
//! - *deletion* begins with the picture and replaces pixels by one colour: the mean of the normalisation, or
//!   0.5 where none is known. The sooner the probability of the predicted class falls, the better: the area under
//!   the curve is small.
//! - *insertion* begins with the blurred picture (Gaussian; its standard deviation is a tenth of the shorter
//!   side) and puts pixels back. The area is large.
//!
//! Probabilities are of the class that is predicted on the picture itself. Areas are under the trapezoids over
//! [0, 1], the share of pixels changed. Random order is the baseline.

use bcosc_passes::Normalization;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::contract::Images;
use crate::vision::random::rng;
use crate::{Error, Explanation};

/// Number of steps.
const STEPS: usize = 20;

/// The blur's standard deviation as a share of the shorter side.
const BLUR: f64 = 0.1;

/// Options of deletion and insertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PerturbationOptions {
    /// Maximum number of pictures, spread evenly.
    pub images: usize,
}

impl Default for PerturbationOptions {
    fn default() -> Self {
        PerturbationOptions { images: 200 }
    }
}

/// Deletion and insertion curves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Perturbation {
    /// Number of pictures.
    pub images: usize,
    /// The share of changed pixels at each point of the curves.
    pub shares: Vec<f64>,
    /// Deletion, largest contributions first.
    pub deletion: Curve,
    /// The same in random order (baseline).
    pub deletion_random: Curve,
    /// Insertion, largest contributions first.
    pub insertion: Curve,
    /// The same in random order (baseline).
    pub insertion_random: Curve,
}

/// A curve: the probability of the predicted class, mean over pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Area under it.
    pub area: f64,
    /// Its points.
    pub probabilities: Vec<f64>,
}

/// The four curves of one picture, or sums of them, in the order of [`Perturbation`].
type Curves = [Vec<f64>; 4];

impl Perturbation {
    /// The means of many pictures' curves.
    pub(super) fn mean(curves: &[Curves]) -> Self {
        let count = curves.len().max(1) as f64;
        let curve = |which: usize| {
            let point = |step: usize| {
                let sum: f64 = curves.iter().map(|curves| curves[which][step]).sum();
                sum / count
            };
            let probabilities: Vec<f64> = (0..=STEPS).map(point).collect();
            Curve {
                area: area(&probabilities),
                probabilities,
            }
        };
        Perturbation {
            images: curves.len(),
            shares: (0..=STEPS).map(|s| s as f64 / STEPS as f64).collect(),
            deletion: curve(0),
            deletion_random: curve(1),
            insertion: curve(2),
            insertion_random: curve(3),
        }
    }
}

/// Perturbs one picture and evaluates `probability` at each step.
pub(super) fn curves(
    picture: &Images,
    explanation: &Explanation,
    colour: Option<&Normalization>,
    [seed, index]: [u64; 2],
    probability: impl Fn(&Images) -> Result<f64, Error>,
) -> Result<Curves, Error> {
    let important = order(&explanation.contributions);
    let mut random: Vec<usize> = (0..important.len()).collect();
    random.shuffle(&mut rng(seed, &[index]));
    let plain = plain(picture, colour);
    let blurred = blurred(picture);
    let run = |from: &Images, to: &Images, order: &[usize]| -> Result<Vec<f64>, Error> {
        let mut now = from.clone();
        let mut changed = 0;
        let mut points = Vec::with_capacity(STEPS + 1);
        for step in 0..=STEPS {
            let until = order.len() * step / STEPS;
            for &pixel in &order[changed..until] {
                copy(pixel, order.len(), to, &mut now);
            }
            changed = until;
            points.push(probability(&now)?);
        }
        Ok(points)
    };
    Ok([
        run(picture, &plain, &important)?,
        run(picture, &plain, &random)?,
        run(&blurred, picture, &important)?,
        run(&blurred, picture, &random)?,
    ])
}

/// Pixels by decreasing contribution; ties keep their order.
fn order(contributions: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contributions.len()).collect();
    order.sort_by(|&a, &b| contributions[b].total_cmp(&contributions[a]));
    order
}

fn copy(pixel: usize, area: usize, from: &Images, to: &mut Images) {
    let all = to.data.iter_mut().zip(&from.data);
    for (to, from) in all.skip(pixel).step_by(area) {
        *to = *from;
    }
}

fn area(points: &[f64]) -> f64 {
    let trapezoids = points.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    trapezoids.sum::<f64>() / points.len().saturating_sub(1).max(1) as f64
}

/// A picture of one colour.
fn plain(picture: &Images, colour: Option<&Normalization>) -> Images {
    let area = plane(picture);
    let colour = |channel: usize| {
        let mean = colour.and_then(|n| n.mean.get(channel).or(n.mean.first()));
        mean.map_or(0.5, |mean| *mean as f32)
    };
    Images {
        dims: picture.dims.clone(),
        data: (0..picture.data.len()).map(|i| colour(i / area)).collect(),
    }
}

fn plane(picture: &Images) -> usize {
    let sides = picture.dims.iter().skip(2).map(|d| *d as usize);
    sides.product::<usize>().max(1)
}

/// Gaussian blur, normalised at the edges.
fn blurred(picture: &Images) -> Images {
    let width = picture.dims.last().map_or(1, |d| *d as usize).max(1);
    let area = plane(picture);
    let height = area / width;
    let deviation = BLUR * height.min(width) as f64;
    let reach = (3.0 * deviation).ceil() as usize;
    let weights: Vec<f64> = (0..=reach)
        .map(|d| (-0.5 * (d as f64 / deviation).powi(2)).exp())
        .collect();
    let mean = |at: usize, length: usize, value: &dyn Fn(usize) -> f32| {
        let (mut sum, mut total) = (0.0, 0.0);
        for i in at.saturating_sub(reach)..(at + reach + 1).min(length) {
            let weight = weights[i.abs_diff(at)];
            sum += weight * f64::from(value(i));
            total += weight;
        }
        (sum / total) as f32
    };
    let mut data = Vec::with_capacity(picture.data.len());
    for plane in picture.data.chunks(area) {
        let rows: Vec<f32> = (0..area)
            .map(|i| mean(i % width, width, &|x| plane[i / width * width + x]))
            .collect();
        data.extend((0..area).map(|i| mean(i / width, height, &|y| rows[y * width + i % width])));
    }
    Images {
        dims: picture.dims.clone(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(dims: [u64; 4], data: &[f32]) -> Images {
        Images {
            dims: dims.to_vec(),
            data: data.to_vec(),
        }
    }

    fn explanation(contributions: &[f32]) -> Explanation {
        Explanation {
            class: 0,
            logit: 0.0,
            probability: None,
            logit_bias: 0.0,
            contribution: 0.0,
            residual: 0.0,
            logits: Vec::new(),
            weights: Vec::new(),
            channels: 2,
            contributions: contributions.to_vec(),
            size: [1, contributions.len()],
        }
    }

    #[test]
    fn pixels_are_ordered_by_what_they_contribute() {
        assert_eq!(order(&[0.5, -1.0, 2.0, 0.5]), [2, 0, 3, 1]);
    }

    #[test]
    fn the_most_important_pixel_goes_first_and_comes_first() {
        // The first of 20 pixels is white, the others are black; the probability is whether the first is white.
        let mut data = vec![0.0; 20];
        data[0] = 1.0;
        let picture = picture([1, 1, 4, 5], &data);
        let explanation = explanation(&data);
        let black = Normalization {
            mean: vec![0.0],
            std: vec![1.0],
        };
        let shown = |image: &Images| Ok(f64::from(image.data[0] > 0.99));
        let found = curves(&picture, &explanation, Some(&black), [0, 0], shown).unwrap();
        let found = Perturbation::mean(&[found]);
        assert_eq!(found.deletion.probabilities[..3], [1.0, 0.0, 0.0]);
        assert_eq!(found.insertion.probabilities[..3], [0.0, 1.0, 1.0]);
        assert_eq!(found.deletion.area, 0.5 / 20.0);
        assert_eq!(found.insertion.area, 19.5 / 20.0);
        let random = found.deletion_random.probabilities;
        assert_eq!((random[0], random[20]), (1.0, 0.0));
        assert_eq!(found.shares[1], 0.05);
    }

    #[test]
    fn all_channels_of_a_pixel_change() {
        let mut now = picture([1, 2, 1, 3], &[0.0; 6]);
        let then = picture([1, 2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        copy(1, 3, &then, &mut now);
        assert_eq!(now.data, [0.0, 2.0, 0.0, 0.0, 5.0, 0.0]);
    }

    #[test]
    fn a_plain_picture_has_the_mean_of_each_channel() {
        let normalization = Normalization {
            mean: vec![0.25, 0.5],
            std: vec![1.0],
        };
        let picture = picture([1, 2, 1, 2], &[1.0; 4]);
        let found = plain(&picture, Some(&normalization));
        assert_eq!(found.data, [0.25, 0.25, 0.5, 0.5]);
        assert_eq!(plain(&picture, None).data, [0.5; 4]);
    }

    #[test]
    fn blur_keeps_what_is_plain_and_spreads_what_is_not() {
        let same = blurred(&picture([1, 1, 20, 20], &[0.25; 400]));
        assert!(same.data.iter().all(|x| (x - 0.25).abs() < 1e-6));
        let mut data = vec![0.0; 400];
        data[10 * 20 + 10] = 1.0;
        let dot = blurred(&picture([1, 1, 20, 20], &data)).data;
        let at = |y: usize, x: usize| dot[y * 20 + x];
        assert!(at(10, 10) < 0.05 && at(10, 10) > at(10, 12) && at(10, 12) > 0.0);
        assert_eq!(at(10, 12), at(12, 10));
        assert_eq!(at(0, 0), 0.0);
        let pixel = picture([1, 1, 1, 1], &[0.5]);
        assert_eq!(blurred(&pixel), pixel);
    }
}
