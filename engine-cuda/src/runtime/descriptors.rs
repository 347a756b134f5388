//! Descriptors of cuDNN: shapes and the window of a convolution, and the search for algorithms.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use bcosc_engine::EngineError;
use cudarc::cudnn::result as cudnn;
use cudarc::cudnn::sys;

use super::Space;
use super::convolution::{Addresses, Algorithm, Found, Math, failed};
use super::gpu::without_captures;
use super::handle::handles;
use crate::expr::Type;
use crate::program::{Convolution, Direction, Layout};

/// Candidates that a search returns.
const MOST: usize = 16;

/// What cuDNN knows of a convolution.
#[derive(Debug)]
pub(super) struct Descriptors {
    x: Tensor,
    w: Filter,
    y: Tensor,
    convolution: Window,
}

// SAFETY: a convolution that is prepared only reads its descriptors.
unsafe impl Send for Descriptors {}
// SAFETY: as above.
unsafe impl Sync for Descriptors {}

handles! {
    /// Sizes and steps of a tensor.
    Tensor(sys::cudnnTensorDescriptor_t), cudnn::destroy_tensor_descriptor;
    /// Sizes of weights.
    Filter(sys::cudnnFilterDescriptor_t), cudnn::destroy_filter_descriptor;
    /// How a convolution goes over its input.
    Window(sys::cudnnConvolutionDescriptor_t), cudnn::destroy_convolution_descriptor;
}

/// Handles of the input, the weights, the output and the window.
pub(super) type Handles = (
    sys::cudnnTensorDescriptor_t,
    sys::cudnnFilterDescriptor_t,
    sys::cudnnTensorDescriptor_t,
    sys::cudnnConvolutionDescriptor_t,
);

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
            w: Filter(cudnn::create_filter_descriptor().map_err(failed)?),
            y: tensor(&y)?,
            convolution: Window(cudnn::create_convolution_descriptor().map_err(failed)?),
        };
        let (pads, strides, dilations) = (
            wide(&c.pads, spatial, 0)?,
            wide(&c.strides, spatial, 1)?,
            wide(&c.dilations, spatial, 1)?,
        );
        let count = |sizes: &[c_int]| sizes.len() as c_int;
        // SAFETY: descriptors were just made, and all arrays have as many elements as is said.
        unsafe {
            cudnn::set_filternd_descriptor(made.w.0, data, format, count(&w), w.as_ptr())
                .map_err(failed)?;
            cudnn::set_convolutionnd_descriptor(
                made.convolution.0,
                count(&pads),
                pads.as_ptr(),
                strides.as_ptr(),
                dilations.as_ptr(),
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sums,
            )
            .map_err(failed)?;
            let groups = i32::try_from(c.groups).unwrap_or(i32::MAX);
            cudnn::set_convolution_group_count(made.convolution.0, groups).map_err(failed)?;
        }
        Ok(made)
    }

    pub fn handles(&self) -> Handles {
        (self.x.0, self.w.0, self.y.0, self.convolution.0)
    }

    pub fn set_math(&self, math: Math) -> Result<(), EngineError> {
        // SAFETY: the descriptor is there.
        unsafe { cudnn::set_convolution_math_type(self.convolution.0, to_cudnn(math)) }
            .map_err(failed)
    }

    /// Measures all algorithms, for which it waits for the device.
    pub fn find(
        &self,
        handle: sys::cudnnHandle_t,
        direction: Direction,
        [a, b, result]: Addresses,
        space: Space,
    ) -> Result<Vec<Found>, EngineError> {
        let _alone = without_captures();
        let (x, w, y, convolution) = self.handles();
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
                            math: of_cudnn(found.mathType),
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
) -> Result<Tensor, EngineError> {
    let made = Tensor(cudnn::create_tensor_descriptor().map_err(failed)?);
    let strides = strides(sizes, layout);
    // SAFETY: the descriptor was just made, and the arrays have as many elements as is said.
    unsafe {
        cudnn::set_tensornd_descriptor(
            made.0,
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

fn to_cudnn(math: Math) -> sys::cudnnMathType_t {
    use sys::cudnnMathType_t as Type;
    match math {
        Math::Default => Type::CUDNN_DEFAULT_MATH,
        Math::TensorOp => Type::CUDNN_TENSOR_OP_MATH,
        Math::TensorOpAllowConversion => Type::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION,
        Math::Fma => Type::CUDNN_FMA_MATH,
    }
}

fn of_cudnn(math: sys::cudnnMathType_t) -> Math {
    use sys::cudnnMathType_t as Type;
    match math {
        Type::CUDNN_DEFAULT_MATH => Math::Default,
        Type::CUDNN_TENSOR_OP_MATH => Math::TensorOp,
        Type::CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION => Math::TensorOpAllowConversion,
        Type::CUDNN_FMA_MATH => Math::Fma,
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
