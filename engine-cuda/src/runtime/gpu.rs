//! A device: its context, one stream for all work, and memory.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bcosc_engine::EngineError;
use cudarc::cublaslt::result as lt;
use cudarc::cudnn::result as cudnn;
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::{CudaContext, CudaStream, sys};

use super::compile::{Architecture, Compiler};
use super::libraries::{Library, NAME, require};

/// A device that is ready for work. Everything runs on one stream, in order.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Its name, as the driver has it.
    pub name: String,
    /// Its architecture.
    pub architecture: Architecture,
    /// Compiles its kernels.
    pub compiler: Compiler,
    libraries: Mutex<Libraries>,
}

/// Handles of libraries. Who holds them has the stream for itself.
pub struct Libraries {
    /// Convolutions.
    pub cudnn: cudarc::cudnn::sys::cudnnHandle_t,
    /// Products of matrices.
    pub lt: cudarc::cublaslt::sys::cublasLtHandle_t,
}

// SAFETY: a handle may be used by one thread after another, and a mutex is around these.
unsafe impl Send for Libraries {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An error of the driver.
pub fn failed(what: &str) -> impl Fn(DriverError) -> EngineError + '_ {
    move |error| EngineError::Run {
        place: what.to_owned(),
        reason: format!("{error:?}"),
    }
}

impl Gpu {
    /// Opens a device and the libraries that run on it.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] says which library or device is missing.
    pub fn open(number: u32) -> Result<Arc<Self>, EngineError> {
        require(&Library::ALL)?;
        let unavailable = |reason: String| EngineError::Unavailable {
            engine: NAME,
            reason,
        };
        let of_driver = |error: DriverError| unavailable(format!("the driver says {error:?}"));
        driver::init().map_err(of_driver)?;
        let count = driver::device::get_count().map_err(of_driver)?;
        let ordinal = usize::try_from(number).unwrap_or(usize::MAX);
        if usize::try_from(count).unwrap_or(0) <= ordinal {
            return Err(unavailable(format!(
                "there is no device {number}; the driver has {count}"
            )));
        }
        let context = CudaContext::new(ordinal).map_err(of_driver)?;
        let name = context.name().map_err(of_driver)?;
        let (major, minor) = context.compute_capability().map_err(of_driver)?;
        let architecture = u32::try_from(10 * major + minor).unwrap_or(0);
        let stream = context.new_stream().map_err(of_driver)?;
        let cudnn = cudnn::create_handle().map_err(|e| unavailable(format!("cuDNN says {e}")))?;
        // SAFETY: the handle and the stream were just made.
        unsafe { cudnn::set_stream(cudnn, stream.cu_stream().cast()) }
            .map_err(|e| unavailable(format!("cuDNN says {e}")))?;
        let lt = lt::create_handle().map_err(|e| unavailable(format!("cuBLASLt says {e}")))?;
        Ok(Arc::new(Gpu {
            context,
            stream,
            name,
            architecture: Architecture(architecture),
            compiler: Compiler::new()?,
            libraries: Mutex::new(Libraries { cudnn, lt }),
        }))
    }

    /// Makes the device that of this thread, and the stream the caller's.
    pub fn lock(&self) -> Result<MutexGuard<'_, Libraries>, EngineError> {
        self.bind()?;
        // A run that panicked leaves handles as they were.
        Ok(self
            .libraries
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the device that of this thread.
    pub fn bind(&self) -> Result<(), EngineError> {
        self.context.bind_to_thread().map_err(failed("the device"))
    }

    /// The stream.
    pub fn stream(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    /// Waits until everything is done.
    pub fn synchronize(&self) -> Result<(), EngineError> {
        self.bind()?;
        self.stream
            .synchronize()
            .map_err(failed("running the graph"))
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> Result<u64, EngineError> {
        let (free, _) = self.context.mem_get_info().map_err(failed("memory"))?;
        Ok(free as u64)
    }

    /// Version of cuDNN.
    pub fn cudnn_version(&self) -> usize {
        cudnn::get_version()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        let Ok(libraries) = self.lock() else { return };
        // SAFETY: nobody has the handles any more.
        let closed = unsafe {
            let of_lt = lt::destroy_handle(libraries.lt).is_ok();
            cudnn::destroy_handle(libraries.cudnn).is_ok() && of_lt
        };
        if !closed {
            tracing::debug!("{NAME}: a library was not closed");
        }
    }
}

/// Memory of a device, given back in the order of the stream.
pub struct Memory {
    gpu: Arc<Gpu>,
    address: sys::CUdeviceptr,
    bytes: u64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.bytes)
    }
}

impl Memory {
    /// Takes memory; its content is not defined.
    pub fn new(gpu: &Arc<Gpu>, bytes: u64) -> Result<Self, EngineError> {
        gpu.bind()?;
        let size = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: what is returned is only used on this stream.
        let address = unsafe { driver::malloc_async(gpu.stream(), size) };
        let address = address.map_err(|error| EngineError::Run {
            place: format!("{bytes} bytes on {}", gpu.name),
            reason: format!("{error:?}"),
        })?;
        Ok(Memory {
            gpu: gpu.clone(),
            address,
            bytes,
        })
    }

    /// Where it is.
    pub fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies from the host, at once.
    pub fn fill(&self, from: &[u8]) -> Result<(), EngineError> {
        if from.len() as u64 > self.bytes {
            return Err(too_long());
        }
        // The allocation is in the order of the stream, a synchronous copy is not.
        self.gpu.synchronize()?;
        // SAFETY: there is room.
        unsafe { driver::memcpy_htod_sync(self.address, from) }.map_err(failed("an upload"))
    }

    /// Copies to the host, after everything before is done.
    pub fn read(&self, bytes: u64) -> Result<Vec<u8>, EngineError> {
        let mut to = vec![0; usize::try_from(bytes.min(self.bytes)).unwrap_or(0)];
        self.gpu.synchronize()?;
        // SAFETY: there is as much.
        unsafe { driver::memcpy_dtoh_sync(&mut to, self.address) }.map_err(failed("a download"))?;
        Ok(to)
    }

    /// Copies from other memory, in the order of the stream.
    pub fn copy_from(&self, other: sys::CUdeviceptr, bytes: u64) -> Result<(), EngineError> {
        if bytes > self.bytes {
            return Err(too_long());
        }
        let bytes = usize::try_from(bytes).unwrap_or(0);
        // SAFETY: there is room, and callers own the source.
        let copied =
            unsafe { driver::memcpy_dtod_async(self.address, other, bytes, self.gpu.stream()) };
        copied.map_err(failed("a copy"))
    }
}

fn too_long() -> EngineError {
    EngineError::Run {
        place: "a copy".to_owned(),
        reason: "there is not enough room".to_owned(),
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody knows the address any more; work that was enqueued before is done first.
        let freed = self.gpu.bind().is_ok()
            && unsafe { driver::free_async(self.address, self.gpu.stream()) }.is_ok();
        if !freed {
            tracing::debug!("{NAME}: memory was not given back");
        }
    }
}

/// Memory of the host that the device copies from by itself.
#[derive(Debug)]
pub struct Pinned {
    gpu: Arc<Gpu>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is plain memory, which one owner writes.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Takes memory. It is cached as any other, since reading what is write-combined would be slow.
    pub fn new(gpu: &Arc<Gpu>, bytes: u64) -> Result<Self, EngineError> {
        gpu.bind()?;
        let bytes = usize::try_from(bytes.max(1)).unwrap_or(usize::MAX);
        // SAFETY: what is returned is written before it is read.
        let start = unsafe { driver::malloc_host(bytes, 0) }.map_err(failed("pinned memory"))?;
        let start = NonNull::new(start.cast::<u8>()).ok_or_else(too_long)?;
        Ok(Pinned {
            gpu: gpu.clone(),
            start,
            bytes,
        })
    }

    /// Copies numbers here, and from here to the device in the order of the stream. The copy before must be done.
    pub fn upload(&mut self, from: &[u8], to: &Memory) -> Result<(), EngineError> {
        if from.len() > self.bytes || from.len() as u64 > to.bytes() {
            return Err(too_long());
        }
        // SAFETY: there is room, and nobody else has it.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), self.start.as_ptr(), from.len());
            let staged = std::slice::from_raw_parts(self.start.as_ptr(), from.len());
            driver::memcpy_htod_async(to.address(), staged, self.gpu.stream())
        }
        .map_err(failed("an upload"))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A copy may still be under way.
        // SAFETY: nobody has the memory any more.
        let freed = self.gpu.synchronize().is_ok()
            && unsafe { driver::free_host(self.start.as_ptr().cast()) }.is_ok();
        if !freed {
            tracing::debug!("{NAME}: pinned memory was not given back");
        }
    }
}
