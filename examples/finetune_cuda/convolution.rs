//! Convolutions by cuDNN.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use cudarc::cudnn::{result as cudnn, sys as dnn};
use serde_json::Value as Json;

use crate::Result;
use crate::gpu::Gpu;
use crate::plan::{Operands, WORKSPACE, list, size, sizes};

static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;

fn one() -> *const c_void {
    (&raw const ONE).cast()
}

fn zero() -> *const c_void {
    (&raw const ZERO).cast()
}

/// An algorithm of cuDNN, by direction.
enum Algorithm {
    Forward(dnn::cudnnConvolutionFwdAlgo_t),
    InputGradient(dnn::cudnnConvolutionBwdDataAlgo_t),
    WeightGradient(dnn::cudnnConvolutionBwdFilterAlgo_t),
}

/// A convolution that is ready to run.
pub struct Convolution {
    x: dnn::cudnnTensorDescriptor_t,
    w: dnn::cudnnFilterDescriptor_t,
    y: dnn::cudnnTensorDescriptor_t,
    window: dnn::cudnnConvolutionDescriptor_t,
    algorithm: Algorithm,
    /// Of the two operands and the result.
    addresses: [u64; 3],
}

/// Sizes as cuDNN takes them, with at least two spatial axes.
fn wide(json: &Json, spatial: usize, fill: c_int) -> Result<Vec<c_int>> {
    let mut found = sizes(json)
        .into_iter()
        .map(c_int::try_from)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    found.extend(std::iter::repeat_n(fill, 2usize.saturating_sub(spatial)));
    Ok(found)
}

impl Convolution {
    /// Describes a convolution of the plan, and asks cuDNN for an algorithm that gives the same bits twice, if there is one.
    /// Unless the plan rounds, it must not use tensor cores.
    pub fn new(gpu: &Gpu, json: &Json, operands: &Operands, rounds: bool) -> Result<Self> {
        let spatial = list(json, "pads")?.len();
        let [x, w, y] = ["x", "w", "y"].map(|key| wide(&json[key], spatial, 1));
        let (x, w, y) = (x?, w?, y?);
        let (pads, strides) = (
            wide(&json["pads"], spatial, 0)?,
            wide(&json["strides"], spatial, 1)?,
        );
        let dilations = wide(&json["dilations"], spatial, 1)?;
        let float = dnn::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let data = match operands.types[2].as_str() {
            "f32" => float,
            "bf16" => dnn::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            other => return Err(format!("this program has no convolutions of {other}").into()),
        };
        let last = json["layout"] == "channels-last";
        let tensor = |sizes: &[c_int]| tensor(data, sizes, last);
        let filter = cudnn::create_filter_descriptor()?;
        let math = match rounds {
            true => dnn::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            false => dnn::cudnnMathType_t::CUDNN_FMA_MATH,
        };
        let (x, y, window) = (
            tensor(&x)?,
            tensor(&y)?,
            cudnn::create_convolution_descriptor()?,
        );
        // SAFETY: descriptors were just made, and all arrays have as many elements as is said.
        unsafe {
            let format = match last {
                true => dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC,
                false => dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW,
            };
            cudnn::set_filternd_descriptor(filter, data, format, w.len() as c_int, w.as_ptr())?;
            cudnn::set_convolutionnd_descriptor(
                window,
                pads.len() as c_int,
                pads.as_ptr(),
                strides.as_ptr(),
                dilations.as_ptr(),
                dnn::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                float,
            )?;
            cudnn::set_convolution_group_count(window, c_int::try_from(size(json, "groups")?)?)?;
            cudnn::set_convolution_math_type(window, math)?;
        }
        macro_rules! choose {
            ($function:ident, $($descriptor:expr),*) => {{
                let mut count = 0;
                // SAFETY: a result of zeros is one, and cuDNN writes as many as it counts.
                let mut found: [_; 16] = unsafe { MaybeUninit::zeroed().assume_init() };
                // SAFETY: as above.
                let status = unsafe { dnn::$function(gpu.cudnn, $($descriptor,)* 16, &raw mut count, found.as_mut_ptr()) };
                status.result()?;
                let usable = || {
                    let found = found.iter().take(usize::try_from(count).unwrap_or(0));
                    found.filter(|f| {
                        f.status == dnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                            && f.memory <= WORKSPACE
                            && (rounds || f.mathType == dnn::cudnnMathType_t::CUDNN_FMA_MATH)
                    })
                };
                let same = usable().find(|f| f.determinism == dnn::cudnnDeterminism_t::CUDNN_DETERMINISTIC);
                let found = same.or(usable().next()).ok_or("cuDNN has no algorithm for a convolution")?;
                // SAFETY: the descriptor is there.
                unsafe { cudnn::set_convolution_math_type(window, found.mathType) }?;
                found.algo
            }};
        }
        let algorithm = match json["direction"].as_str() {
            Some("forward") => Algorithm::Forward(choose!(
                cudnnGetConvolutionForwardAlgorithm_v7,
                x,
                filter,
                window,
                y
            )),
            Some("input-gradient") => Algorithm::InputGradient(choose!(
                cudnnGetConvolutionBackwardDataAlgorithm_v7,
                filter,
                y,
                window,
                x
            )),
            Some("weight-gradient") => Algorithm::WeightGradient(choose!(
                cudnnGetConvolutionBackwardFilterAlgorithm_v7,
                x,
                y,
                window,
                filter
            )),
            _ => return Err("a convolution has no direction".into()),
        };
        Ok(Convolution {
            x,
            w: filter,
            y,
            window,
            algorithm,
            addresses: operands.addresses,
        })
    }

    /// Enqueues it.
    pub fn run(&self, gpu: &Gpu, space: *mut c_void) -> Result<()> {
        let Convolution {
            x, w, y, window, ..
        } = *self;
        let [a, b] = [self.addresses[0], self.addresses[1]].map(|address| address as *const c_void);
        let result = self.addresses[2] as *mut c_void;
        // SAFETY: buffers hold what the descriptors say, and the workspace is as large as was asked for.
        unsafe {
            match self.algorithm {
                Algorithm::Forward(algorithm) => cudnn::convolution_forward(
                    gpu.cudnn,
                    one(),
                    x,
                    a,
                    w,
                    b,
                    window,
                    algorithm,
                    space,
                    WORKSPACE,
                    zero(),
                    y,
                    result,
                ),
                Algorithm::InputGradient(algorithm) => cudnn::convolution_backward_data(
                    gpu.cudnn,
                    one(),
                    w,
                    b,
                    y,
                    a,
                    window,
                    algorithm,
                    space,
                    WORKSPACE,
                    zero(),
                    x,
                    result,
                ),
                Algorithm::WeightGradient(algorithm) => cudnn::convolution_backward_filter(
                    gpu.cudnn,
                    one(),
                    x,
                    a,
                    y,
                    b,
                    window,
                    algorithm,
                    space,
                    WORKSPACE,
                    zero(),
                    w,
                    result,
                ),
            }
        }?;
        Ok(())
    }
}

fn tensor(
    data: dnn::cudnnDataType_t,
    sizes: &[c_int],
    last: bool,
) -> Result<dnn::cudnnTensorDescriptor_t> {
    let made = cudnn::create_tensor_descriptor()?;
    // From the axis whose elements are neighbours outwards.
    let spatial = (2..sizes.len()).rev();
    let inwards: Vec<usize> = match last {
        true => [1].into_iter().chain(spatial).chain([0]).collect(),
        false => spatial.chain([1, 0]).collect(),
    };
    let (mut strides, mut step) = (vec![1; sizes.len()], 1);
    for axis in inwards {
        strides[axis] = step;
        step *= sizes[axis];
    }
    let count = sizes.len() as c_int;
    // SAFETY: the descriptor was just made, and the arrays have as many elements as is said.
    unsafe { cudnn::set_tensornd_descriptor(made, data, count, sizes.as_ptr(), strides.as_ptr()) }?;
    Ok(made)
}
