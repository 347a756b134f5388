//! Events, and steps that are captured as a CUDA graph.

use std::ptr;
use std::sync::Arc;

use bcosc_engine::EngineError;
use cudarc::driver::result as driver;
use cudarc::driver::sys;

use super::gpu::{Gpu, failed, without_captures};
use super::libraries::NAME;

/// A moment in the order of the stream.
pub struct Event {
    gpu: Arc<Gpu>,
    event: sys::CUevent,
}

// SAFETY: handles of the driver belong to no thread.
unsafe impl Send for Event {}

impl Event {
    /// An event that was not recorded.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Self, EngineError> {
        gpu.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = driver::event::create(flags).map_err(failed("an event"))?;
        Ok(Event {
            gpu: gpu.clone(),
            event,
        })
    }

    /// Makes it the moment when the stream has done what is on it now.
    pub fn record(&self) -> Result<(), EngineError> {
        // SAFETY: both are there.
        unsafe { driver::event::record(self.event, self.gpu.stream()) }.map_err(failed("an event"))
    }

    /// Waits on the host; at once if it was never recorded.
    pub fn wait(&self) -> Result<(), EngineError> {
        // SAFETY: the event is there.
        unsafe { driver::event::synchronize(self.event) }.map_err(failed("an upload"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        let destroyed =
            self.gpu.bind().is_ok() && unsafe { driver::event::destroy(self.event) }.is_ok();
        if !destroyed {
            tracing::debug!("{NAME}: an event was not given back");
        }
    }
}

/// Steps as a CUDA graph.
pub struct Captured {
    gpu: Arc<Gpu>,
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
}

// SAFETY: handles of the driver belong to no thread.
unsafe impl Send for Captured {}

impl Captured {
    /// Captures what a function enqueues on the stream for it.
    pub fn of(
        gpu: &Arc<Gpu>,
        enqueue: impl FnOnce() -> Result<(), EngineError>,
    ) -> Result<Self, EngineError> {
        let failed = failed("capturing the graph");
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let _alone = without_captures();
        // SAFETY: the stream is there, and nobody else has it.
        unsafe { driver::stream::begin_capture(gpu.capture_stream(), mode) }.map_err(&failed)?;
        let enqueued = enqueue();
        // SAFETY: as above; a capture ends whatever happened.
        let ended = unsafe { driver::stream::end_capture(gpu.capture_stream()) };
        let mut captured = Captured {
            gpu: gpu.clone(),
            graph: ended.unwrap_or(ptr::null_mut()),
            executable: ptr::null_mut(),
        };
        enqueued?;
        ended.map_err(&failed)?;
        // SAFETY: the graph was just captured.
        captured.executable = unsafe {
            driver::graph::instantiate(captured.graph, sys::CUgraphInstantiate_flags_enum(0))
        }
        .map_err(&failed)?;
        Ok(captured)
    }

    /// Enqueues the steps.
    pub fn launch(&self) -> Result<(), EngineError> {
        // SAFETY: both are there.
        unsafe { driver::graph::launch(self.executable, self.gpu.stream()) }
            .map_err(failed("running the graph"))
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // SAFETY: nobody launches it any more.
        let closed = self.gpu.synchronize().is_ok()
            && unsafe {
                let of_executable = self.executable.is_null()
                    || driver::graph::exec_destroy(self.executable).is_ok();
                of_executable & (self.graph.is_null() || driver::graph::destroy(self.graph).is_ok())
            };
        if !closed {
            tracing::debug!("{NAME}: a captured graph was not given back");
        }
    }
}
