//! Convolutions by cuDNN and products of matrices by cuBLASLt, in single precision.

use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, size_of_val};

use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::cudnn::{result as cudnn, sys as dnn};
use serde_json::Value as Json;

use crate::Result;
use crate::plan::{Gpu, WORKSPACE, list, size, sizes};

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
    /// Describes a convolution of the plan, and asks cuDNN for an algorithm that rounds to single precision and gives the same
    /// bits twice, if there is one.
    pub fn new(gpu: &Gpu, json: &Json, addresses: [u64; 3]) -> Result<Self> {
        let spatial = list(json, "pads")?.len();
        let [x, w, y] = ["x", "w", "y"].map(|key| wide(&json[key], spatial, 1));
        let (x, w, y) = (x?, w?, y?);
        let (pads, strides) = (
            wide(&json["pads"], spatial, 0)?,
            wide(&json["strides"], spatial, 1)?,
        );
        let dilations = wide(&json["dilations"], spatial, 1)?;
        let float = dnn::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let (tensor, filter) = (tensor, cudnn::create_filter_descriptor()?);
        let (x, y, window) = (
            tensor(&x)?,
            tensor(&y)?,
            cudnn::create_convolution_descriptor()?,
        );
        // SAFETY: descriptors were just made, and all arrays have as many elements as is said.
        unsafe {
            let format = dnn::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
            cudnn::set_filternd_descriptor(filter, float, format, w.len() as c_int, w.as_ptr())?;
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
            cudnn::set_convolution_math_type(window, dnn::cudnnMathType_t::CUDNN_FMA_MATH)?;
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
                            && f.mathType == dnn::cudnnMathType_t::CUDNN_FMA_MATH
                    })
                };
                let same = usable().find(|f| f.determinism == dnn::cudnnDeterminism_t::CUDNN_DETERMINISTIC);
                same.or(usable().next()).ok_or("cuDNN has no algorithm for a convolution")?.algo
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
            addresses,
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

fn tensor(sizes: &[c_int]) -> Result<dnn::cudnnTensorDescriptor_t> {
    let made = cudnn::create_tensor_descriptor()?;
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis];
    }
    let float = dnn::cudnnDataType_t::CUDNN_DATA_FLOAT;
    let count = sizes.len() as c_int;
    // SAFETY: the descriptor was just made, and the arrays have as many elements as is said.
    unsafe {
        cudnn::set_tensornd_descriptor(made, float, count, sizes.as_ptr(), strides.as_ptr())
    }?;
    Ok(made)
}

/// A product of matrices that is ready to run. cuBLASLt counts matrices column by column: `C = A B` row by row is
/// `C^T = B^T A^T`.
pub struct Product {
    description: lt_sys::cublasLtMatmulDesc_t,
    layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
    /// Of the left side, the right side and the result.
    addresses: [u64; 3],
}

/// A factor as cuBLASLt sees it.
struct Seen {
    rows: u64,
    columns: u64,
    step: i64,
    transposed: bool,
    stride: i64,
    /// In bytes.
    offset: u64,
}

impl Seen {
    fn of(factor: &Json, rows: u64, columns: u64) -> Result<Self> {
        let (row, column) = (size(factor, "row")?, size(factor, "column")?);
        let transposed = column != 1;
        Ok(Seen {
            rows: if transposed { rows } else { columns },
            columns: if transposed { columns } else { rows },
            step: i64::try_from(if transposed { column } else { row })?,
            transposed,
            stride: i64::try_from(size(factor, "batch")?)?,
            offset: 4 * size(factor, "offset")?,
        })
    }

    fn layout(&self, batch: i32) -> Result<lt_sys::cublasLtMatrixLayout_t> {
        use lt_sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let float = lt_sys::cudaDataType::CUDA_R_32F;
        let made = lt::create_matrix_layout(float, self.rows, self.columns, self.step)?;
        let (count, stride) = (
            Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
        );
        // SAFETY: the layout was just made; the attributes are a number of 32 bits and one of 64.
        unsafe {
            lt::set_matrix_layout_attribute(
                made,
                count,
                (&raw const batch).cast(),
                size_of_val(&batch),
            )?;
            lt::set_matrix_layout_attribute(
                made,
                stride,
                (&raw const self.stride).cast(),
                size_of_val(&self.stride),
            )?;
        }
        Ok(made)
    }
}

impl Product {
    /// Describes a product of the plan, and takes the first algorithm that cuBLASLt offers without workspace.
    pub fn new(gpu: &Gpu, json: &Json, [a, b, result]: [u64; 3]) -> Result<Self> {
        let [m, n, k] = ["m", "n", "k"].map(|key| size(json, key));
        let (m, n, k) = (m?, n?, k?);
        let batch = i32::try_from(size(json, "batch")?)?;
        let (left, right) = (Seen::of(&json["b"], k, n)?, Seen::of(&json["a"], m, k)?);
        let whole = Seen {
            rows: n,
            columns: m,
            step: i64::try_from(n)?,
            transposed: false,
            stride: i64::try_from(m * n)?,
            offset: 0,
        };
        let compute = lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = lt::create_matmul_desc(compute, lt_sys::cudaDataType::CUDA_R_32F)?;
        use lt_sys::cublasLtMatmulDescAttributes_t as Attribute;
        let sides = [
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &left),
            (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &right),
        ];
        for (attribute, side) in sides {
            let turned = i32::from(side.transposed);
            // SAFETY: the description was just made, and the attribute is one number of 32 bits.
            unsafe {
                lt::set_matmul_desc_attribute(
                    description,
                    attribute,
                    (&raw const turned).cast(),
                    size_of_val(&turned),
                )
            }?;
        }
        let layouts = [
            left.layout(batch)?,
            right.layout(batch)?,
            whole.layout(batch)?,
        ];
        let preference = lt::create_matmul_pref()?;
        // Matrices may begin at any element.
        let aligned = 4u32;
        use lt_sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        for attribute in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        ] {
            // SAFETY: the preference was just made, and the attribute is one number of 32 bits.
            unsafe {
                lt::set_matmul_pref_attribute(
                    preference,
                    attribute,
                    (&raw const aligned).cast(),
                    size_of_val(&aligned),
                )
            }?;
        }
        let [first, second, third] = layouts;
        // SAFETY: everything was just made.
        let found = unsafe {
            let found = lt::get_matmul_algo_heuristic(
                gpu.lt,
                description,
                first,
                second,
                third,
                third,
                preference,
            )?;
            lt::destroy_matmul_pref(preference)?;
            found
        };
        Ok(Product {
            description,
            layouts,
            algorithm: found.algo,
            addresses: [b + left.offset, a + right.offset, result],
        })
    }

    /// Enqueues it.
    pub fn run(&self, gpu: &Gpu, space: *mut c_void) -> Result<()> {
        let [left, right, result] = self.addresses;
        let [first, second, third] = self.layouts;
        // SAFETY: buffers hold what the layouts say.
        unsafe {
            lt::matmul(
                gpu.lt,
                self.description,
                one(),
                zero(),
                left as *const c_void,
                first,
                right as *const c_void,
                second,
                result as *const c_void,
                third,
                result as *mut c_void,
                third,
                &raw const self.algorithm,
                space,
                0,
                gpu.stream.cast(),
            )
        }?;
        Ok(())
    }
}
