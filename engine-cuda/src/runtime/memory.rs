//! Memory of a device, and of the host for copies to it.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use bcosc_engine::EngineError;
use cudarc::driver::result as driver;
use cudarc::driver::sys;

use super::gpu::{Gpu, failed};
use super::libraries::NAME;

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

    /// Copies to the host, in the order of the stream, and waits until it is done.
    pub fn read(&self, bytes: u64) -> Result<Vec<u8>, EngineError> {
        let mut to = vec![0; usize::try_from(bytes.min(self.bytes)).unwrap_or(0)];
        self.gpu.bind()?;
        // SAFETY: there is as much, and it stays until the copy is done.
        unsafe { driver::memcpy_dtoh_async(&mut to, self.address, self.gpu.stream()) }
            .map_err(failed("a download"))?;
        if let Err(error) = self.gpu.synchronize() {
            // The device may still write there.
            std::mem::forget(to);
            return Err(error);
        }
        Ok(to)
    }

    /// Copies from other memory, in the order of the stream.
    pub fn copy_from(&self, other: sys::CUdeviceptr, bytes: u64) -> Result<(), EngineError> {
        if bytes > self.bytes {
            return Err(too_long());
        }
        self.gpu.bind()?;
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
        self.gpu.bind()?;
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
