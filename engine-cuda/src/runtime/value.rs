//! Tensors on a device.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bcosc_engine::{EngineError, Stored};
use bcosc_ir::{Tensor, TensorType};

use super::gpu::Gpu;
use super::memory::Memory;
use crate::expr::Type;

/// A tensor on a device. While it is the state of a session, its memory is the session's; the session moves it out
/// before it writes there.
pub struct CudaValue {
    gpu: Arc<Gpu>,
    ty: Type,
    dims: Vec<u64>,
    memory: Mutex<Arc<Memory>>,
}

impl fmt::Debug for CudaValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaValue({})", self.tensor_type())
    }
}

impl CudaValue {
    /// A value in memory.
    pub fn new(gpu: &Arc<Gpu>, ty: Type, dims: &[u64], memory: Arc<Memory>) -> Self {
        CudaValue {
            gpu: gpu.clone(),
            ty,
            dims: dims.to_vec(),
            memory: Mutex::new(memory),
        }
    }

    /// Copies a tensor to a device.
    pub fn of(gpu: &Arc<Gpu>, tensor: &Tensor) -> Result<Self, EngineError> {
        let dtype = tensor.dtype();
        let ty = Type::of(dtype).ok_or(EngineError::DataType(dtype))?;
        let memory = Memory::new(gpu, tensor.byte_len())?;
        memory.fill(&tensor.bytes()?)?;
        Ok(CudaValue::new(gpu, ty, &tensor.dims(), Arc::new(memory)))
    }

    /// Whether it is on this device.
    pub fn is_on(&self, gpu: &Arc<Gpu>) -> bool {
        Arc::ptr_eq(&self.gpu, gpu)
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.dims.iter().product::<u64>() * self.ty.bytes()
    }

    /// Where it is.
    pub fn memory(&self) -> Arc<Memory> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.clone()
    }

    /// Copies it to memory of its own.
    pub fn move_out(&self) -> Result<(), EngineError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Memory::new(&self.gpu, self.bytes())?;
        own.copy_from(memory.address(), self.bytes())?;
        *memory = Arc::new(own);
        Ok(())
    }
}

impl Stored for CudaValue {
    fn tensor_type(&self) -> TensorType {
        TensorType::fixed(self.ty.data_type(), &self.dims)
    }

    fn read(&self) -> Result<Tensor, EngineError> {
        let bytes = {
            // A run would move it while it is read.
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.read(self.bytes())?
        };
        Ok(Tensor::from_bytes(
            self.ty.data_type(),
            &self.dims,
            bytes.into(),
        ))
    }
}
