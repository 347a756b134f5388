//! Descriptors of cuDNN: shapes and the window of a convolution, and the search for algorithms.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use bcosc_engine::EngineError;
use cudarc::cudnn::result as cudnn;
use cudarc::cudnn::sys;

use super::Space;
use super::convolution::{Addresses, Algorithm, Found, failed};
use crate::expr::Type;
use crate::program::{Convolution, Direction, Layout};

/// Candidates that a search returns.
const MOST: usize = 16;

/// What cuDNN knows of a convolution.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub x: sys::cudnnTensorDescriptor_t,
    pub w: sys::cudnnFilterDescriptor_t,
    pub y: sys::cudnnTensorDescriptor_t,
    pub convolution: sys::cudnnConvolutionDescriptor_t,
}

// SAFETY: descriptors are read only once they are made.
unsafe impl Send for Descriptors {}
// SAFETY: as above.
unsafe impl Sync for Descriptors {}

/// Sizes as cuDNN takes them: with at least two spatial axes.
fn wide(sizes: &[u64], spatial: usize, fill: u64) -> Result<Vec<c_int>, EngineError> {
    let missing = 2usize.saturating_sub(spatial);
    let sizes = sizes
        .iter()
        .copied()
        .chain(std::iter::repeat_n(fill, missing));
    let sizes = sizes.map(c_int::try_from);
    sizes
        .collect::<Result<_, _>>()
        .map_err(|_| EngineError::Run {
            place: "a convolution".to_owned(),
            reason: "a size does not fit 32 bits".to_owned(),
        })
}

impl Descriptors {
    pub fn new(c: &Convolution, ty: Type) -> Result<Self, EngineError> {
        let data = match ty {
            Type::F32 => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            Type::F64 => sys::cudnnDataType_t::CUDNN_DATA_DOUBLE,
            Type::Bf16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            other => return Err(EngineError::DataType(other.data_type())),
        };
        let spatial = c.pads.len();
        let [x, w, y] = [&c.x, &c.w, &c.y].map(|sizes| wide(sizes, spatial, 1));
        let (x, w, y) = (x?, w?, y?);
        // Sums of bf16 are in single precision.
        let sums = match ty {
            Type::F64 => data,
            _ => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let format = match c.layout {
            Layout::ChannelsFirst => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
            Layout::ChannelsLast => sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
        };
        let tensor = |sizes: &[c_int]| tensor(data, sizes, c.layout);
        let made = Descriptors {
            x: tensor(&x)?,
            w: cudnn::create_filter_descriptor().map_err(failed)?,
            y: tensor(&y)?,
            convolution: cudnn::create_convolution_descriptor().map_err(failed)?,
        };
        let (pads, strides, dilations) = (
            wide(&c.pads, spatial, 0)?,
            wide(&c.strides, spatial, 1)?,
            wide(&c.dilations, spatial, 1)?,
        );
        let count = |sizes: &[c_int]| sizes.len() as c_int;
        // SAFETY: descriptors were just made, and all arrays have as many elements as is said.
        unsafe {
            cudnn::set_filternd_descriptor(made.w, data, format, count(&w), w.as_ptr())
                .map_err(failed)?;
            cudnn::set_convolutionnd_descriptor(
                made.convolution,
                count(&pads),
                pads.as_ptr(),
                strides.as_ptr(),
                dilations.as_ptr(),
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sums,
            )
            .map_err(failed)?;
            let groups = i32::try_from(c.groups).unwrap_or(i32::MAX);
            cudnn::set_convolution_group_count(made.convolution, groups).map_err(failed)?;
        }
        Ok(made)
    }

    pub fn set_math(&self, tensor_cores: bool) -> Result<(), EngineError> {
        let math = match tensor_cores {
            true => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            false => sys::cudnnMathType_t::CUDNN_FMA_MATH,
        };
        // SAFETY: the descriptor is there.
        unsafe { cudnn::set_convolution_math_type(self.convolution, math) }.map_err(failed)
    }

    /// Measures all algorithms.
    pub fn find(
        &self,
        handle: sys::cudnnHandle_t,
        direction: Direction,
        [a, b, result]: Addresses,
        space: Space,
    ) -> Result<Vec<Found>, EngineError> {
        let Descriptors {
            x,
            w,
            y,
            convolution,
        } = *self;
        let [a, b] = [a as *const c_void, b as *const c_void];
        let result = result as *mut c_void;
        let memory = space.address as *mut c_void;
        let size = usize::try_from(space.bytes).unwrap_or(0);
        let mut count: c_int = 0;
        macro_rules! search {
            ($function:ident, $($argument:expr),*) => {{
                // SAFETY: a result of zeros is one, and cuDNN writes as many as it counts.
                let mut found: [_; MOST] = unsafe { MaybeUninit::zeroed().assume_init() };
                // SAFETY: as for a run.
                let status = unsafe {
                    sys::$function(
                        handle, $($argument,)* MOST as c_int, &raw mut count, found.as_mut_ptr(), memory, size,
                    )
                };
                status.result().map_err(failed)?;
                let usable = found.iter().take(usize::try_from(count).unwrap_or(0));
                let usable = usable.filter(|found| found.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS);
                usable
                    .map(|found| Found {
                        algorithm: Algorithm {
                            number: found.algo as u32,
                            tensor_cores: found.mathType != sys::cudnnMathType_t::CUDNN_FMA_MATH,
                            space: found.memory as u64,
                        },
                        same_bits: found.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC,
                    })
                    .collect()
            }};
        }
        Ok(match direction {
            Direction::Forward => {
                search!(
                    cudnnFindConvolutionForwardAlgorithmEx,
                    x,
                    a,
                    w,
                    b,
                    convolution,
                    y,
                    result
                )
            }
            Direction::InputGradient => {
                search!(
                    cudnnFindConvolutionBackwardDataAlgorithmEx,
                    w,
                    b,
                    y,
                    a,
                    convolution,
                    x,
                    result
                )
            }
            Direction::WeightGradient => {
                search!(
                    cudnnFindConvolutionBackwardFilterAlgorithmEx,
                    x,
                    a,
                    y,
                    b,
                    convolution,
                    w,
                    result
                )
            }
        })
    }
}

fn tensor(
    data: sys::cudnnDataType_t,
    sizes: &[c_int],
    layout: Layout,
) -> Result<sys::cudnnTensorDescriptor_t, EngineError> {
    let made = cudnn::create_tensor_descriptor().map_err(failed)?;
    let strides = strides(sizes, layout);
    // SAFETY: the descriptor was just made, and the arrays have as many elements as is said.
    unsafe {
        cudnn::set_tensornd_descriptor(
            made,
            data,
            sizes.len() as c_int,
            sizes.as_ptr(),
            strides.as_ptr(),
        )
    }
    .map_err(failed)?;
    Ok(made)
}

/// From one element to the next along each axis.
fn strides(sizes: &[c_int], layout: Layout) -> Vec<c_int> {
    let spatial = (2..sizes.len()).rev();
    let inwards: Vec<usize> = match layout {
        Layout::ChannelsFirst => spatial.chain([1, 0]).collect(),
        Layout::ChannelsLast => [1].into_iter().chain(spatial).chain([0]).collect(),
    };
    let mut strides = vec![1; sizes.len()];
    let mut step = 1;
    for axis in inwards {
        strides[axis] = step;
        step *= sizes[axis];
    }
    strides
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: nobody uses them any more.
        let closed = unsafe {
            [
                cudnn::destroy_tensor_descriptor(self.x).is_ok(),
                cudnn::destroy_filter_descriptor(self.w).is_ok(),
                cudnn::destroy_tensor_descriptor(self.y).is_ok(),
                cudnn::destroy_convolution_descriptor(self.convolution).is_ok(),
            ]
        };
        if closed.contains(&false) {
            tracing::debug!("cuDNN: a descriptor was not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_come_first_or_last() {
        assert_eq!(
            strides(&[2, 3, 5, 7], Layout::ChannelsFirst),
            [105, 35, 7, 1]
        );
        assert_eq!(
            strides(&[2, 3, 5, 7], Layout::ChannelsLast),
            [105, 1, 21, 3]
        );
    }

    #[test]
    fn one_spatial_axis_becomes_two() {
        assert_eq!(wide(&[2, 3, 7], 1, 1).unwrap(), [2, 3, 7, 1]);
        assert_eq!(wide(&[1, 1], 2, 0).unwrap(), [1, 1]);
        assert!(wide(&[1 << 40], 2, 0).is_err());
    }
}
