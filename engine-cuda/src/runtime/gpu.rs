//! A device: its context, one stream for all work, and memory.

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bcosc_engine::EngineError;
use cudarc::cublaslt::result as lt;
use cudarc::cudnn::result as cudnn;
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::{CudaContext, CudaStream, sys};

use super::compile::{Architecture, Compiler};
use super::libraries::{Library, NAME, require};

/// The version number of the first cuDNN whose interface is used: 9.0.0.
const CUDNN: usize = 90_000;

/// A device that is ready for work. Everything runs on one stream, in order.
pub struct Gpu {
    /// First, since it is given back while the context is there.
    libraries: Mutex<Libraries>,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Where steps are captured: what other threads do on the stream of all work meanwhile is no part of the graph.
    captured: Arc<CudaStream>,
    /// Its name, as the driver has it.
    pub name: String,
    /// Its architecture.
    pub architecture: Architecture,
    /// Compiles its kernels.
    pub compiler: Compiler,
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

impl Libraries {
    /// Opens them on the device of this thread.
    fn open() -> Result<Self, EngineError> {
        let unavailable = |reason: String| EngineError::Unavailable {
            engine: NAME,
            reason,
        };
        // A system may have an older one under the name without a version, whose interface has other numbers.
        let version = cudnn::get_version();
        if version < CUDNN {
            return Err(unavailable(format!(
                "cuDNN 9 is needed, and the system's libcudnn has version number {version}"
            )));
        }
        let mut libraries = Libraries {
            cudnn: ptr::null_mut(),
            lt: ptr::null_mut(),
        };
        libraries.cudnn =
            cudnn::create_handle().map_err(|e| unavailable(format!("cuDNN says {e}")))?;
        libraries.lt =
            lt::create_handle().map_err(|e| unavailable(format!("cuBLASLt says {e}")))?;
        Ok(libraries)
    }

    /// The stream of convolutions from now on. Products get theirs with each call.
    pub fn run_on(&self, stream: sys::CUstream) -> Result<(), EngineError> {
        // SAFETY: the handle and the stream are there.
        unsafe { cudnn::set_stream(self.cudnn, stream.cast()) }.map_err(super::convolution::failed)
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        let _alone = whole_device();
        // SAFETY: nobody has the handles any more.
        let closed = unsafe {
            let of_lt = self.lt.is_null() || lt::destroy_handle(self.lt).is_ok();
            of_lt & (self.cudnn.is_null() || cudnn::destroy_handle(self.cudnn).is_ok())
        };
        if !closed {
            tracing::debug!("{NAME}: a library was not closed");
        }
    }
}

/// Held where steps are captured and where a library waits for the whole device, which a capture does not survive, whatever
/// thread and engine they belong to.
pub fn whole_device() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Lets memory that is given back stay with the process. Otherwise the system gets it whenever the host waits, and each run takes
/// memory for its outputs from the system again.
fn keep_memory(device: sys::CUdevice) -> Result<(), DriverError> {
    use sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let mut all = u64::MAX;
    // SAFETY: the device is there, and the attribute is a number of 64 bits.
    unsafe {
        let pool = driver::device::get_default_mem_pool(device)?;
        let value = (&raw mut all).cast();
        driver::mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, value)
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
        // SAFETY: what tracks events is made by the context, and it makes nothing here but streams. With it, a new stream waits for
        // the whole device.
        unsafe { context.disable_event_tracking() };
        keep_memory(context.cu_device()).map_err(of_driver)?;
        let name = context.name().map_err(of_driver)?;
        let (major, minor) = context.compute_capability().map_err(of_driver)?;
        let architecture = u32::try_from(10 * major + minor).unwrap_or(0);
        let stream = context.new_stream().map_err(of_driver)?;
        let captured = context.new_stream().map_err(of_driver)?;
        let compiler = Compiler::new()?;
        Ok(Arc::new(Gpu {
            libraries: Mutex::new(Libraries::open()?),
            context,
            stream,
            captured,
            name,
            architecture: Architecture(architecture),
            compiler,
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

    /// The stream that steps are captured from; nothing runs on it.
    pub fn captured(&self) -> sys::CUstream {
        self.captured.cu_stream()
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
        if self.bind().is_err() {
            tracing::debug!("{NAME}: the device is gone");
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

    /// Copies from the host, in the order of the stream, and waits until it is done.
    pub fn fill(&self, from: &[u8]) -> Result<(), EngineError> {
        if from.len() as u64 > self.bytes {
            return Err(too_long());
        }
        self.gpu.bind()?;
        // A copy without a stream may return before its numbers are on the device, and this stream does not wait for it.
        // SAFETY: there is room, and the numbers stay until the copy is done.
        unsafe { driver::memcpy_htod_async(self.address, from, self.gpu.stream()) }
            .map_err(failed("an upload"))?;
        self.gpu.synchronize()
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
