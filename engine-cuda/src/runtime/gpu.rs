//! A device: its context, one stream for all work, and the pool of its memory.

use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bcosc_engine::EngineError;
use cudarc::cublaslt::result as lt;
use cudarc::cudnn::result as cudnn;
use cudarc::driver::result::{self as driver, DriverError};
use cudarc::driver::{CudaContext, CudaStream, sys};

use super::compile::{Architecture, Compiler};
use super::libraries::{Library, NAME, require};

/// The version number of the first cuDNN whose interface is used: 9.0.0.
const OLDEST_CUDNN: usize = 90_000;

/// A device that is ready for work. Everything runs on one stream, in order.
pub struct Gpu {
    /// First, since it is given back while the context is there.
    libraries: Mutex<Libraries>,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Where steps are captured: what other threads do on the stream of all work meanwhile is no part of the graph.
    capture_stream: Arc<CudaStream>,
    /// Where its memory is from.
    pool: Pool,
    /// Its name, as the driver has it.
    pub name: String,
    /// Its architecture.
    pub architecture: Architecture,
    /// Compiles its kernels.
    pub compiler: Compiler,
}

/// Handles of libraries. Who holds them is the only one that enqueues steps.
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
        if version < OLDEST_CUDNN {
            return Err(unavailable(format!(
                "cuDNN 9 is needed, and the system's libcudnn has version number {version}"
            )));
        }
        let mut libraries = Libraries {
            cudnn: ptr::null_mut(),
            lt: ptr::null_mut(),
        };
        let made = libraries.make();
        made.map_err(unavailable)?;
        Ok(libraries)
    }

    /// Makes the handles. After an error the caller drops what was made before it, which takes the lock again.
    fn make(&mut self) -> Result<(), String> {
        let _alone = without_captures();
        self.cudnn = cudnn::create_handle().map_err(|e| format!("cuDNN says {e}"))?;
        self.lt = lt::create_handle().map_err(|e| format!("cuBLASLt says {e}"))?;
        Ok(())
    }

    /// The stream of convolutions from now on. Products get theirs with each call.
    pub fn run_on(&self, stream: sys::CUstream) -> Result<(), EngineError> {
        // SAFETY: the handle and the stream are there.
        unsafe { cudnn::set_stream(self.cudnn, stream.cast()) }.map_err(super::convolution::failed)
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        let _alone = without_captures();
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

/// While somebody holds this, nobody else captures. Held where steps are captured, and where a call may wait for the whole
/// device, which no capture survives, whatever thread and engine they belong to. Nothing else is locked while it is held.
pub fn without_captures() -> MutexGuard<'static, ()> {
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

/// The pool of a device that memory comes from.
struct Pool(sys::CUmemoryPool);

// SAFETY: handles of the driver belong to no thread.
unsafe impl Send for Pool {}
// SAFETY: as above; the driver locks what it changes.
unsafe impl Sync for Pool {}

impl Pool {
    /// Lets memory that is given back stay with the process. Otherwise the system gets it whenever the host waits, and each run
    /// takes memory for its outputs from the system again.
    fn of(device: sys::CUdevice) -> Result<Self, DriverError> {
        use sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let mut all = u64::MAX;
        // SAFETY: the device is there, and the attribute is a number of 64 bits.
        unsafe {
            let pool = driver::device::get_default_mem_pool(device)?;
            let value = (&raw mut all).cast();
            driver::mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, value)?;
            Ok(Pool(pool))
        }
    }

    /// Bytes that the process has from the system and does not use.
    fn unused(&self) -> Result<u64, DriverError> {
        use sys::CUmemPool_attribute as Attribute;
        let number = |attribute| {
            let mut value = 0u64;
            // SAFETY: the pool is there as long as its device, and the attributes are numbers of 64 bits.
            unsafe { driver::mem_pool::get_attribute(self.0, attribute, (&raw mut value).cast()) }?;
            Ok(value)
        };
        let reserved = number(Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
        let used = number(Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
        Ok(reserved.saturating_sub(used))
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
        // While tracking is on, the first stream that is made waits for the whole device.
        // SAFETY: tracking concerns cudarc's `CudaSlice`, which nothing here uses.
        unsafe { context.disable_event_tracking() };
        let pool = Pool::of(context.cu_device()).map_err(of_driver)?;
        let name = context.name().map_err(of_driver)?;
        let (major, minor) = context.compute_capability().map_err(of_driver)?;
        let architecture = u32::try_from(10 * major + minor).unwrap_or(0);
        let stream = context.new_stream().map_err(of_driver)?;
        let capture_stream = context.new_stream().map_err(of_driver)?;
        let compiler = Compiler::new()?;
        Ok(Arc::new(Gpu {
            libraries: Mutex::new(Libraries::open()?),
            context,
            stream,
            capture_stream,
            pool,
            name,
            architecture: Architecture(architecture),
            compiler,
        }))
    }

    /// Makes the device that of this thread, and the caller the only one that enqueues steps.
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
    pub fn capture_stream(&self) -> sys::CUstream {
        self.capture_stream.cu_stream()
    }

    /// Waits until everything is done.
    pub fn synchronize(&self) -> Result<(), EngineError> {
        self.bind()?;
        self.stream
            .synchronize()
            .map_err(failed("running the graph"))
    }

    /// Bytes that are free. Waits, since memory that was given back is free when the stream has come to that.
    pub fn free_bytes(&self) -> Result<u64, EngineError> {
        self.synchronize()?;
        let (free, _) = self.context.mem_get_info().map_err(failed("memory"))?;
        Ok(free as u64 + self.pool.unused().map_err(failed("memory"))?)
    }

    /// Waits, and gives memory that nothing uses to the system.
    pub fn give_back_unused(&self) -> Result<(), EngineError> {
        self.synchronize()?;
        let _alone = without_captures();
        // SAFETY: the pool is there as long as its device.
        unsafe { driver::mem_pool::trim_to(self.pool.0, 0) }.map_err(failed("memory"))
    }

    /// Version of cuDNN.
    pub fn cudnn_version(&self) -> usize {
        cudnn::get_version()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // Fields that are dropped next give back what is the context's.
        if self.bind().is_err() {
            tracing::debug!("{NAME}: the device is gone");
        }
    }
}
