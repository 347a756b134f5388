//! Comparison of two results.

use bcosc_ir::{DataType, Tensor, TensorError};
use serde::Serialize;

/// Maximum tolerance: with a larger one, unrelated results would pass.
const LARGEST_TOLERANCE: f64 = 0.1;

/// Metrics of the comparison of a result with a reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Largest difference.
    pub max_abs: f64,
    /// Largest difference, relative to the largest magnitude in the reference.
    pub max_relative: f64,
    /// Cosine of the angle between the two, as vectors.
    pub cosine: f64,
    /// Share of rows (along the first dimension) whose largest element has the same index.
    pub top1: f64,
    /// Whether both are free of NaN and infinities.
    pub finite: bool,
    /// Number of elements compared; 0 if any output has none.
    pub elements: u64,
    /// Whether both are floating point and all zeros, so that the comparison is meaningless.
    pub zero: bool,
}

/// Two results cannot be compared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// They differ in shape or element type.
    #[error("the reference is {reference}, the candidate {candidate}")]
    Type {
        /// Type of the reference.
        reference: String,
        /// Type of the candidate.
        candidate: String,
    },
    /// One of them cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl Agreement {
    /// Compares a result with a reference.
    pub fn between(reference: &Tensor, candidate: &Tensor) -> Result<Self, CompareError> {
        let types = (reference.tensor_type(), candidate.tensor_type());
        if types.0 != types.1 {
            let (reference, candidate) = (types.0.to_string(), types.1.to_string());
            return Err(CompareError::Type {
                reference,
                candidate,
            });
        }
        let rows = reference.dims().first().copied().unwrap_or(1);
        let (reference_numbers, candidate_numbers) = (numbers(reference)?, numbers(candidate)?);
        let mut found = measure(&reference_numbers, &candidate_numbers, rows);
        // Integers are labels and sizes: 0 is as meaningful as any other.
        found.zero &= reference.dtype().is_float();
        Ok(found)
    }

    /// Combines the metrics of several pairs: the worst value of each, and the mean of `top1` weighted by rows.
    /// Pairs of zeros count only if there are no others. Without pairs, nothing
    /// agrees.
    pub fn overall(parts: impl IntoIterator<Item = Agreement>) -> Agreement {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else {
            return measure(&[], &[], 0);
        };
        let weighed = |part: &Agreement| part.top1 * part.elements as f64;
        let start = (first, weighed(&first), first.elements);
        let (total, top1, elements) = parts.fold(start, |(total, top1, elements), part| {
            let merged = Agreement {
                max_abs: worst(total.max_abs, part.max_abs, f64::max),
                max_relative: worst(total.max_relative, part.max_relative, f64::max),
                cosine: worst(total.cosine, part.cosine, f64::min),
                top1: 0.0,
                finite: total.finite && part.finite,
                elements: all_or_none(total.elements, part.elements),
                zero: total.zero && part.zero,
            };
            (merged, top1 + weighed(&part), elements + part.elements)
        });
        Agreement {
            top1: if elements > 0 {
                top1 / elements as f64
            } else {
                0.0
            },
            ..total
        }
    }

    /// Whether both are equal up to a difference of `rtol` relative to the largest magnitude in the
    /// reference. False with NaN or infinities, or nothing to compare. The tolerance is at most
    /// 0.1.
    pub fn within(&self, rtol: f64) -> bool {
        let granted = rtol >= 0.0 && self.max_relative <= rtol.min(LARGEST_TOLERANCE);
        granted && self.finite && self.elements > 0 && !self.zero
    }
}

/// Any part without elements makes the total 0.
fn all_or_none(a: u64, b: u64) -> u64 {
    if a == 0 || b == 0 { 0 } else { a + b }
}

/// NaN is the worst value.
fn worst(a: f64, b: f64, of: impl Fn(f64, f64) -> f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        of(a, b)
    }
}

/// The elements of any numeric tensor.
pub(crate) fn numbers(tensor: &Tensor) -> Result<Vec<f64>, TensorError> {
    match tensor.dtype() {
        DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16 => {
            tensor.to_f64s()
        }
        _ => Ok(tensor.to_i64s()?.into_iter().map(|x| x as f64).collect()),
    }
}

fn measure(reference: &[f64], candidate: &[f64], rows: u64) -> Agreement {
    let pairs = || reference.iter().zip(candidate);
    let finite = pairs().all(|(r, c)| r.is_finite() && c.is_finite());
    let max_abs = pairs()
        .map(|(r, c)| (r - c).abs())
        .fold(0.0, |a, b| worst(a, b, f64::max));
    let scale = reference
        .iter()
        .map(|r| r.abs())
        .fold(0.0, |a, b| worst(a, b, f64::max));
    let dot: f64 = pairs().map(|(r, c)| r * c).sum();
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let norms = norm(reference) * norm(candidate);
    let zero = scale == 0.0 && max_abs == 0.0 && !reference.is_empty();
    Agreement {
        max_abs,
        max_relative: if zero {
            0.0
        } else if scale > 0.0 {
            max_abs / scale
        } else {
            f64::INFINITY
        },
        cosine: if zero {
            1.0
        } else if norms > 0.0 {
            (dot / norms).clamp(-1.0, 1.0)
        } else {
            0.0
        },
        top1: same_argmax(reference, candidate, rows),
        finite,
        elements: reference.len() as u64,
        zero,
    }
}

fn same_argmax(reference: &[f64], candidate: &[f64], rows: u64) -> f64 {
    let rows = usize::try_from(rows).unwrap_or(0);
    let width = reference.len().checked_div(rows).unwrap_or(0);
    if width == 0 {
        return 0.0;
    }
    let same = reference
        .chunks(width)
        .zip(candidate.chunks(width))
        .filter(|(r, c)| argmax(r) == argmax(c));
    same.count() as f64 / rows as f64
}

fn argmax(row: &[f64]) -> usize {
    let better = |best: usize, (i, x): (usize, &f64)| if *x > row[best] { i } else { best };
    row.iter().enumerate().fold(0, better)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 6] = [1.0, -2.0, 0.5, 0.25, 3.0, -1.0];

    fn agreement(candidate: [f32; 6]) -> Agreement {
        let [reference, candidate] = [LOGITS, candidate].map(|x| Tensor::f32s(&[2, 3], x.to_vec()));
        Agreement::between(&reference, &candidate).unwrap()
    }

    #[test]
    fn equal_and_nearly_equal_results_agree() {
        let same = agreement(LOGITS);
        assert!(same.within(1e-12));
        assert_eq!((same.max_abs, same.top1, same.elements), (0.0, 1.0, 6));
        assert!((same.cosine - 1.0).abs() < 1e-12);
        let near = agreement(LOGITS.map(|x| x * 1.00001));
        assert!(near.within(1e-4) && !near.within(1e-6));
        assert!((near.max_relative - 1e-5).abs() < 1e-7);
    }

    #[test]
    fn near_misses_fail_whatever_the_tolerance() {
        let mut one_nan = LOGITS;
        one_nan[5] = f32::NAN;
        let mut one_infinite = LOGITS;
        one_infinite[0] = f32::INFINITY;
        let mut permuted = LOGITS;
        permuted.rotate_left(1);
        let misses = [
            LOGITS.map(|x| 2.0 * x),
            LOGITS.map(|x| -x),
            LOGITS.map(|x| x + 0.5),
            [0.0; 6],
            permuted,
            one_nan,
            one_infinite,
        ];
        for miss in misses {
            for rtol in [1e-4, 1.0, f64::INFINITY] {
                assert!(!agreement(miss).within(rtol), "{miss:?} at {rtol}");
            }
        }
        assert!(!agreement(LOGITS).within(f64::NAN));
    }

    #[test]
    fn a_reference_that_shows_nothing_proves_nothing() {
        let nothing = Tensor::f32s(&[0, 3], vec![]);
        assert!(!Agreement::between(&nothing, &nothing).unwrap().within(1e-4));
        let zeros = Tensor::f32s(&[1, 3], vec![0.0; 3]);
        let found = Agreement::between(&zeros, &zeros).unwrap();
        assert!(found.zero && !found.within(1e-4));
        let found = Agreement::between(&zeros, &Tensor::f32s(&[1, 3], vec![0.0, 1e-9, 0.0]));
        assert!(!found.unwrap().within(0.1));
        let nan = Tensor::f32s(&[1, 1], vec![f32::NAN]);
        assert!(!Agreement::between(&nan, &nan).unwrap().within(1e-4));
        assert!(!Agreement::overall([]).within(1e-4));
    }

    #[test]
    fn labels_of_zero_are_labels() {
        let label = |x: i64| Tensor::i64s(&[1], vec![x]);
        let of = |a, b| Agreement::between(&label(a), &label(b)).unwrap();
        assert!(of(0, 0).within(1e-4));
        assert!(!of(0, 1).within(0.1) && !of(1, 0).within(0.1));
    }

    #[test]
    fn a_sample_of_zeros_counts_for_nothing_beside_others() {
        let zeros = Agreement {
            zero: true,
            ..agreement(LOGITS)
        };
        assert!(Agreement::overall([zeros, agreement(LOGITS)]).within(1e-4));
        assert!(!Agreement::overall([zeros, zeros]).within(1e-4));
        let doubled = agreement(LOGITS.map(|x| 2.0 * x));
        assert!(!Agreement::overall([zeros, doubled]).within(1e-4));
    }

    #[test]
    fn one_bad_part_spoils_the_whole() {
        let parts = [
            agreement(LOGITS),
            agreement(LOGITS.map(|x| 2.0 * x)),
            agreement(LOGITS),
        ];
        assert!(!Agreement::overall(parts).within(1e-4));
        let mut nan = LOGITS;
        nan[1] = f32::NAN;
        for parts in [[nan, LOGITS], [LOGITS, nan]] {
            let overall = Agreement::overall(parts.map(agreement));
            assert!(!overall.finite && overall.max_relative.is_nan() && !overall.within(1e-4));
        }
    }

    #[test]
    fn top1_counts_rows() {
        let second_row_differs = [1.0, -2.0, 0.5, 3.1, 3.0, -1.0];
        assert_eq!(agreement(second_row_differs).top1, 0.5);
        let row = |x: [f32; 3]| Tensor::f32s(&[1, 3], x.to_vec());
        let other = Agreement::between(&row([0.0, 1.0, 0.0]), &row([1.0, 0.0, 0.0])).unwrap();
        let parts = [agreement(LOGITS), other];
        assert!((Agreement::overall(parts).top1 - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn other_shapes_and_types_are_an_error() {
        let reference = Tensor::f32s(&[2, 3], LOGITS.to_vec());
        let flat = Tensor::f32s(&[6], LOGITS.to_vec());
        let error = Agreement::between(&reference, &flat).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the reference is float[2,3], the candidate float[6]"
        );
        let ints = Tensor::i64s(&[2, 3], vec![0; 6]);
        assert!(Agreement::between(&reference, &ints).is_err());
    }
}
