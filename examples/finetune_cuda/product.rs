//! Products of matrices by cuBLASLt.

use std::ffi::c_void;
use std::mem::size_of_val;

use cudarc::cublaslt::{result as lt, sys as lt_sys};
use serde_json::Value as Json;

use crate::Result;
use crate::gpu::Gpu;
use crate::plan::{Operands, size};

static ONE: f32 = 1.0;
static ZERO: f32 = 0.0;

fn one() -> *const c_void {
    (&raw const ONE).cast()
}

fn zero() -> *const c_void {
    (&raw const ZERO).cast()
}

/// A product of matrices that is ready to run. cuBLASLt counts matrices column by column: `C = A B` row by row is
/// `C^T = B^T A^T`.
pub struct Product {
    description: lt_sys::cublasLtMatmulDesc_t,
    layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
    /// Of the left side, the right side and the result.
    addresses: [u64; 3],
    /// Of what is added to every element, if anything is.
    sum: Option<u64>,
}

/// Addresses of what is added to products: a number per column, and one per element.
pub struct Added {
    pub bias: Option<u64>,
    pub sum: Option<u64>,
}

/// A factor as cuBLASLt sees it.
struct Seen {
    rows: u64,
    columns: u64,
    step: i64,
    transposed: bool,
    stride: i64,
    /// In elements.
    offset: u64,
}

/// As cuBLASLt calls a type, and its bytes.
fn data(name: &str) -> Result<(lt_sys::cudaDataType, u64)> {
    match name {
        "f32" => Ok((lt_sys::cudaDataType::CUDA_R_32F, 4)),
        "bf16" => Ok((lt_sys::cudaDataType::CUDA_R_16BF, 2)),
        other => Err(format!("this program has no products of {other}").into()),
    }
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
            offset: size(factor, "offset")?,
        })
    }

    fn layout(
        &self,
        data: lt_sys::cudaDataType,
        batch: i32,
    ) -> Result<lt_sys::cublasLtMatrixLayout_t> {
        use lt_sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let made = lt::create_matrix_layout(data, self.rows, self.columns, self.step)?;
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

/// Sets an attribute that has the size of `value`.
fn describe<T>(
    description: lt_sys::cublasLtMatmulDesc_t,
    attribute: lt_sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<()> {
    // SAFETY: the callers made the description, and `value` has the type that belongs to the attribute.
    unsafe {
        lt::set_matmul_desc_attribute(
            description,
            attribute,
            (&raw const *value).cast(),
            size_of_val(value),
        )
    }?;
    Ok(())
}

impl Product {
    /// Describes a product of the plan, and takes the first algorithm that cuBLASLt offers without workspace.
    pub fn new(
        gpu: &Gpu,
        json: &Json,
        operands: &Operands,
        added: &Added,
        precision: &str,
    ) -> Result<Self> {
        let [a, b, result] = operands.addresses;
        let ((factors, width), (of_result, _)) =
            (data(&operands.types[0])?, data(&operands.types[2])?);
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
        let compute = match precision {
            "tf32" => lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let description = lt::create_matmul_desc(compute, lt_sys::cudaDataType::CUDA_R_32F)?;
        use lt_sys::cublasLtMatmulDescAttributes_t as Attribute;
        let turned = [&left, &right].map(|side| i32::from(side.transposed));
        describe(
            description,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &turned[0],
        )?;
        describe(
            description,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &turned[1],
        )?;
        if let Some(bias) = &added.bias {
            let epilogue = lt_sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            describe(
                description,
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &epilogue,
            )?;
            describe(
                description,
                Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                bias,
            )?;
        }
        let layouts = [
            left.layout(factors, batch)?,
            right.layout(factors, batch)?,
            whole.layout(of_result, batch)?,
        ];
        let preference = lt::create_matmul_pref()?;
        // Matrices may begin at any element.
        let aligned = u32::try_from(width)?;
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
            addresses: [b + width * left.offset, a + width * right.offset, result],
            sum: added.sum,
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
                if self.sum.is_some() { one() } else { zero() },
                left as *const c_void,
                first,
                right as *const c_void,
                second,
                self.sum.unwrap_or(result) as *const c_void,
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
