//! Products of matrices by cuBLASLt, which counts matrices column by column: `C = A B` row by row is `C^T = B^T A^T`.

use std::ffi::c_void;
use std::mem::size_of_val;

use bcosc_engine::{EngineError, Precision};
use cudarc::cublaslt::result as lt;
use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;

use super::Space;
use super::handle::handles;
use crate::expr::Type;
use crate::program::{Added, Factor, Product};

fn failed(error: lt::CublasError) -> EngineError {
    EngineError::Run {
        place: "a product of matrices".to_owned(),
        reason: format!("{:?}", error.0),
    }
}

/// A product that is ready to run.
#[derive(Debug)]
pub struct Prepared {
    description: Description,
    /// Of the left and the right side, and of the result.
    layouts: [Layout; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// Bytes of workspace.
    pub space: u64,
    /// Offsets of the first and the second factor, in bytes.
    offsets: [u64; 2],
    /// The address of what is added to every element, if anything is.
    sum: Option<u64>,
    /// Of the factors.
    ty: Type,
}

/// Element types of a product.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    /// Of both factors.
    pub factors: Type,
    /// Of the result.
    pub result: Type,
}

/// As cuBLASLt calls a type.
fn data(ty: Type) -> Result<sys::cudaDataType, EngineError> {
    Ok(match ty {
        Type::F32 => sys::cudaDataType::CUDA_R_32F,
        Type::F64 => sys::cudaDataType::CUDA_R_64F,
        Type::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        other => return Err(EngineError::DataType(other.data_type())),
    })
}

// SAFETY: descriptions are read only once they are made.
unsafe impl Send for Prepared {}
// SAFETY: as above.
unsafe impl Sync for Prepared {}

/// A factor as cuBLASLt sees it: rows, columns, step of columns, and whether it is transposed.
fn seen(factor: &Factor, rows: u64, columns: u64) -> (u64, u64, i64, bool) {
    // Row by row, it is its own transpose; column by column, it must be transposed.
    match factor.column == 1 {
        true => (columns, rows, factor.row as i64, false),
        false => (rows, columns, factor.column as i64, true),
    }
}

impl Prepared {
    /// Chooses an algorithm. What is added is given by address.
    pub fn new(
        handle: sys::cublasLtHandle_t,
        product: &Product,
        Types {
            factors,
            result: ty,
        }: Types,
        precision: Precision,
        added: Added<u64>,
        most: u64,
    ) -> Result<Self, EngineError> {
        use sys::cublasComputeType_t as Compute;
        let compute = match (factors, precision) {
            (Type::F64, _) => Compute::CUBLAS_COMPUTE_64F,
            (Type::F32, Precision::Tf32) => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => Compute::CUBLAS_COMPUTE_32F,
        };
        // What sums are multiplied with is of their own type.
        let scale = data(if factors == Type::F64 {
            factors
        } else {
            Type::F32
        })?;
        let Product {
            batch,
            m,
            n,
            k,
            a,
            b,
        } = product;
        let (left, right) = (seen(b, *k, *n), seen(a, *m, *k));
        let (of_factors, of_result) = (data(factors)?, data(ty)?);
        let description = Description(lt::create_matmul_desc(compute, scale).map_err(failed)?);
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        describe(
            &description,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &i32::from(left.3),
        )?;
        describe(
            &description,
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &i32::from(right.3),
        )?;
        if let Some(bias) = added.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            describe(
                &description,
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE,
                &epilogue,
            )?;
            describe(
                &description,
                Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                &bias,
            )?;
        }
        let batches = i32::try_from(*batch).unwrap_or(i32::MAX);
        let layout = |(rows, columns, step, _): (u64, u64, i64, bool), stride: u64, data| {
            let layout = Layout(lt::create_matrix_layout(data, rows, columns, step)?);
            let stride = stride as i64;
            // SAFETY: the layout was just made; the attributes are a number of 32 bits and one of 64.
            unsafe {
                use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
                lt::set_matrix_layout_attribute(
                    layout.0,
                    Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                    (&raw const batches).cast(),
                    size_of_val(&batches),
                )?;
                lt::set_matrix_layout_attribute(
                    layout.0,
                    Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                    (&raw const stride).cast(),
                    size_of_val(&stride),
                )?;
            }
            Ok(layout)
        };
        let result = (*n, *m, *n as i64, false);
        let layouts = [
            (left, b.batch, of_factors),
            (right, a.batch, of_factors),
            (result, m * n, of_result),
        ];
        let [left, right, result] = layouts.map(|(seen, stride, data)| layout(seen, stride, data));
        let layouts = [
            left.map_err(failed)?,
            right.map_err(failed)?,
            result.map_err(failed)?,
        ];

        let preference = Preference::new(most, [b, a].map(|factor| alignment(factor, factors)))?;
        // SAFETY: everything was just made.
        let found = unsafe {
            lt::get_matmul_algo_heuristic(
                handle,
                description.0,
                layouts[0].0,
                layouts[1].0,
                layouts[2].0,
                layouts[2].0,
                preference.0,
            )
        }
        .map_err(failed)?;
        Ok(Prepared {
            description,
            layouts,
            algorithm: found.algo,
            space: found.workspaceSize as u64,
            offsets: [a.offset, b.offset].map(|offset| offset * factors.bytes()),
            sum: added.sum,
            ty: factors,
        })
    }

    /// Enqueues it; addresses are those of the first factor, the second and the result.
    pub fn run(
        &self,
        handle: sys::cublasLtHandle_t,
        [a, b, result]: [u64; 3],
        space: Space,
        stream: CUstream,
    ) -> Result<(), EngineError> {
        // y = 1 a b + of_sum sum; where nothing is added, the result itself takes the place of the sum and is not read.
        let of_sum = if self.sum.is_some() { 1.0 } else { 0.0 };
        let (narrow, wide) = ([1f32, of_sum as f32], [1f64, of_sum]);
        let [one, of_sum]: [*const c_void; 2] = match self.ty {
            Type::F64 => wide.each_ref().map(|x| (&raw const *x).cast()),
            _ => narrow.each_ref().map(|x| (&raw const *x).cast()),
        };
        let at = |address: u64| address as *const c_void;
        // SAFETY: the plan's buffers hold what the layouts say, and the workspace is as large as the algorithm needs.
        unsafe {
            lt::matmul(
                handle,
                self.description.0,
                one,
                of_sum,
                at(b + self.offsets[1]),
                self.layouts[0].0,
                at(a + self.offsets[0]),
                self.layouts[1].0,
                at(self.sum.unwrap_or(result)),
                self.layouts[2].0,
                result as *mut c_void,
                self.layouts[2].0,
                &raw const self.algorithm,
                space.address as *mut c_void,
                usize::try_from(self.space).unwrap_or(0),
                stream.cast(),
            )
        }
        .map_err(failed)
    }
}

handles! {
    /// What a product does.
    Description(sys::cublasLtMatmulDesc_t), lt::destroy_matmul_desc;
    /// How a matrix lies in memory.
    Layout(sys::cublasLtMatrixLayout_t), lt::destroy_matrix_layout;
    /// What an algorithm may need.
    Preference(sys::cublasLtMatmulPreference_t), lt::destroy_matmul_pref;
}

/// Sets an attribute that has the size of `value`.
fn describe<T>(
    description: &Description,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: &T,
) -> Result<(), EngineError> {
    // SAFETY: the callers own the description, and `value` has the type that belongs to the attribute.
    unsafe {
        lt::set_matmul_desc_attribute(
            description.0,
            attribute,
            (&raw const *value).cast(),
            size_of_val(value),
        )
    }
    .map_err(failed)
}

/// What every address of a factor's matrices is a multiple of.
fn alignment(factor: &Factor, ty: Type) -> u32 {
    let steps = [factor.offset, factor.batch].map(|step| step * ty.bytes());
    let bits = steps
        .iter()
        .map(|step| step.trailing_zeros())
        .min()
        .unwrap_or(8);
    1 << bits.min(8)
}

impl Preference {
    fn new(most: u64, [left, right]: [u32; 2]) -> Result<Self, EngineError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Preference(lt::create_matmul_pref().map_err(failed)?);
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the preference was just made, and the value has the size that belongs to it.
            unsafe { lt::set_matmul_pref_attribute(preference.0, attribute, value, size) }
                .map_err(failed)
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            (&raw const most).cast(),
            size_of_val(&most),
        )?;
        let sides = [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, left),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, right),
        ];
        for (attribute, bytes) in sides {
            set(attribute, (&raw const bytes).cast(), size_of_val(&bytes))?;
        }
        Ok(preference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_seen_column_by_column() {
        let rows = Factor {
            offset: 0,
            batch: 0,
            row: 7,
            column: 1,
        };
        assert_eq!(seen(&rows, 3, 5), (5, 3, 7, false));
        let columns = Factor {
            offset: 0,
            batch: 0,
            row: 1,
            column: 9,
        };
        assert_eq!(seen(&columns, 3, 5), (3, 5, 9, true));
    }

    #[test]
    fn addresses_are_multiples_of_what_steps_are() {
        let factor = |offset, batch| Factor {
            offset,
            batch,
            row: 1,
            column: 1,
        };
        assert_eq!(alignment(&factor(0, 0), Type::F32), 256);
        assert_eq!(alignment(&factor(3, 0), Type::F32), 4);
        assert_eq!(alignment(&factor(0, 6), Type::F32), 8);
    }
}
