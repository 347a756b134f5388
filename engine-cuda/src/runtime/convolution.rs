//! Convolutions by cuDNN's legacy interface.
//!
//! Algorithms are measured by `cudnnFind*AlgorithmEx` once for each shape, device and version, and kept on disk. The math type
//! that was measured is kept with it, since the workspace depends on it: fp32 means `FMA_MATH`, since others round to TF32.
//! Algorithms that give the same bits twice are preferred.

use std::ffi::c_void;

use bcosc_engine::{EngineError, Precision};
use cudarc::cudnn::result::{self as cudnn, CudnnError};
use cudarc::cudnn::sys;
use serde::{Deserialize, Serialize};

use super::Space;
use super::descriptors::Descriptors;
use crate::expr::Type;
use crate::program::{Convolution, Direction};

pub(super) fn failed(error: CudnnError) -> EngineError {
    EngineError::Run {
        place: "a convolution".to_owned(),
        reason: format!("cuDNN says {error}"),
    }
}

/// An algorithm of cuDNN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Algorithm {
    /// Its number among those of its direction.
    pub number: u32,
    /// How it multiplies.
    pub math: Math,
    /// Bytes of workspace.
    pub space: u64,
}

/// How an algorithm multiplies, as cuDNN names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Math {
    /// On tensor cores, where they take the type or round single precision to TF32.
    Default,
    /// As [`Math::Default`], asked for by name; cuDNN measures the two separately.
    TensorOp,
    /// On tensor cores, with factors that may be narrowed further.
    TensorOpAllowConversion,
    /// In the type itself.
    Fma,
}

impl Math {
    /// What a search asks for. It tries [`Math::Default`] as well.
    fn wanted(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Math::Fma,
            Precision::Tf32 | Precision::Bf16 => Math::TensorOp,
        }
    }

    /// Whether what it computes is in a precision.
    fn fits(self, precision: Precision) -> bool {
        match precision {
            Precision::Fp32 => self == Math::Fma,
            Precision::Tf32 | Precision::Bf16 => self != Math::TensorOpAllowConversion,
        }
    }
}

/// A convolution that is ready to run.
#[derive(Debug)]
pub struct Prepared {
    descriptors: Descriptors,
    direction: Direction,
    ty: Type,
    /// What runs.
    pub algorithm: Algorithm,
}

/// Addresses of the first operand, the second and the result.
pub type Addresses = [u64; 3];

impl Prepared {
    /// Prepares a convolution for an algorithm, or for the fastest that a search on these buffers finds. The search writes to
    /// the result.
    pub fn new(
        handle: sys::cudnnHandle_t,
        convolution: &Convolution,
        ty: Type,
        precision: Precision,
        known: Option<Algorithm>,
        search: impl FnOnce() -> Result<(Addresses, Space), EngineError>,
    ) -> Result<Self, EngineError> {
        let descriptors = Descriptors::new(convolution, ty)?;
        let direction = convolution.direction;
        let algorithm = match known {
            Some(algorithm) => algorithm,
            None => {
                descriptors.set_math(Math::wanted(precision))?;
                let (addresses, space) = search()?;
                let found = descriptors.find(handle, direction, addresses, space)?;
                choose(found, precision, space.bytes).ok_or_else(|| EngineError::Run {
                    place: format!("convolution {convolution:?}"),
                    reason: "cuDNN has no algorithm that fits into memory".to_owned(),
                })?
            }
        };
        descriptors.set_math(algorithm.math)?;
        Ok(Prepared {
            descriptors,
            direction,
            ty,
            algorithm,
        })
    }

    /// Enqueues it on the stream of the handle.
    pub fn run(
        &self,
        handle: sys::cudnnHandle_t,
        [a, b, result]: Addresses,
        space: Space,
    ) -> Result<(), EngineError> {
        let (one, zero, one_wide, zero_wide) = (1f32, 0f32, 1f64, 0f64);
        let (one, zero): (*const c_void, *const c_void) = match self.ty {
            Type::F64 => ((&raw const one_wide).cast(), (&raw const zero_wide).cast()),
            _ => ((&raw const one).cast(), (&raw const zero).cast()),
        };
        let (x, w, y, convolution) = self.descriptors.handles();
        let [a, b] = [a as *const c_void, b as *const c_void];
        let result = result as *mut c_void;
        let memory = space.address as *mut c_void;
        let size = usize::try_from(self.algorithm.space).unwrap_or(0);
        let number = self.algorithm.number;
        // SAFETY: the plan's buffers hold what the descriptors say, the workspace is as large as the algorithm needs, and its
        // number came from cuDNN.
        unsafe {
            match self.direction {
                Direction::Forward => cudnn::convolution_forward(
                    handle,
                    one,
                    x,
                    a,
                    w,
                    b,
                    convolution,
                    forward(number)?,
                    memory,
                    size,
                    zero,
                    y,
                    result,
                ),
                Direction::InputGradient => cudnn::convolution_backward_data(
                    handle,
                    one,
                    w,
                    b,
                    y,
                    a,
                    convolution,
                    backward_data(number)?,
                    memory,
                    size,
                    zero,
                    x,
                    result,
                ),
                Direction::WeightGradient => cudnn::convolution_backward_filter(
                    handle,
                    one,
                    x,
                    a,
                    y,
                    b,
                    convolution,
                    backward_filter(number)?,
                    memory,
                    size,
                    zero,
                    w,
                    result,
                ),
            }
        }
        .map_err(failed)
    }
}

/// The fastest that fits, of those that give the same bits twice if there are any. They come fastest first.
fn choose(found: Vec<Found>, precision: Precision, most: u64) -> Option<Algorithm> {
    let usable = found
        .into_iter()
        .filter(|found| found.algorithm.space <= most && found.algorithm.math.fits(precision));
    let usable: Vec<Found> = usable.collect();
    let same_bits = usable.iter().find(|found| found.same_bits);
    same_bits.or(usable.first()).map(|found| found.algorithm)
}

/// What a search found.
pub(super) struct Found {
    pub algorithm: Algorithm,
    pub same_bits: bool,
}

macro_rules! numbered {
    ($($name:ident $kind:ident: $($variant:ident)*;)*) => {$(
        /// The algorithm of a number.
        fn $name(number: u32) -> Result<sys::$kind, EngineError> {
            let all = [$(sys::$kind::$variant),*];
            let found = all.into_iter().find(|algorithm| *algorithm as u32 == number);
            found.ok_or_else(|| EngineError::Run {
                place: "a convolution".to_owned(),
                reason: format!("cuDNN has no algorithm {number}"),
            })
        }
    )*};
}

numbered! {
    forward cudnnConvolutionFwdAlgo_t:
        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM
        CUDNN_CONVOLUTION_FWD_ALGO_GEMM CUDNN_CONVOLUTION_FWD_ALGO_DIRECT CUDNN_CONVOLUTION_FWD_ALGO_FFT
        CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD
        CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED;
    backward_data cudnnConvolutionBwdDataAlgo_t:
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_0 CUDNN_CONVOLUTION_BWD_DATA_ALGO_1 CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED;
    backward_filter cudnnConvolutionBwdFilterAlgo_t:
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0 CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1 CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3 CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(number: u32, math: Math, space: u64, same_bits: bool) -> Found {
        let algorithm = Algorithm {
            number,
            math,
            space,
        };
        Found {
            algorithm,
            same_bits,
        }
    }

    #[test]
    fn factors_are_not_narrowed_further_than_a_precision_says() {
        for precision in Precision::ALL {
            assert!(!Math::TensorOpAllowConversion.fits(precision));
            assert!(Math::wanted(precision).fits(precision));
        }
    }

    #[test]
    fn exact_convolutions_use_no_tensor_cores_and_give_the_same_bits_where_possible() {
        let all = || {
            vec![
                found(1, Math::Default, 0, true),
                found(6, Math::Fma, 1 << 40, true),
                found(0, Math::Fma, 10, false),
                found(2, Math::Fma, 20, true),
            ]
        };
        let number = |found: Option<Algorithm>| found.map(|a| a.number);
        assert_eq!(number(choose(all(), Precision::Fp32, 100)), Some(2));
        assert_eq!(number(choose(all(), Precision::Fp32, 15)), Some(0));
        assert_eq!(number(choose(all(), Precision::Tf32, 100)), Some(1));
        assert_eq!(number(choose(Vec::new(), Precision::Tf32, 100)), None);
    }
}
