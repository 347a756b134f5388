//! Kernels on a device.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use bcosc_engine::{EngineError, Precision};
use cudarc::driver::result as driver;
use cudarc::driver::sys;

use super::code::loaded;
use super::gpu::{Gpu, failed};
use super::libraries::NAME;
use crate::kernels::THREADS;
use crate::plan::Source;

/// A kernel on a device.
#[derive(Debug)]
pub struct Kernel {
    function: sys::CUfunction,
    name: String,
    /// How many addresses, from the first on, are one parameter.
    table: usize,
    /// What the function is part of.
    _module: Module,
}

// SAFETY: handles of the driver belong to no thread.
unsafe impl Send for Kernel {}
// SAFETY: as above; launches only read them.
unsafe impl Sync for Kernel {}

impl Kernel {
    /// Compiles it and loads it.
    pub fn load(
        gpu: &Arc<Gpu>,
        source: &Source,
        precision: Precision,
    ) -> Result<Self, EngineError> {
        let place = format!("kernel {}", source.name);
        let name = CString::new(source.name.clone()).map_err(|_| EngineError::Load {
            place: place.clone(),
            reason: "its name has a zero byte".to_owned(),
        })?;
        let load = |mut image: Vec<u8>| {
            // Intermediate code is a text, which ends with a zero.
            image.push(0);
            // SAFETY: the code is what the compiler made.
            let module = unsafe { driver::module::load_data(image.as_ptr().cast()) };
            Ok(Module {
                gpu: gpu.clone(),
                module: module.map_err(failed(&place))?,
            })
        };
        let module = loaded(&gpu.compiler, source, gpu.architecture, precision, load)?;
        // SAFETY: the module was just loaded.
        let function =
            unsafe { driver::module::get_function(module.module, name) }.map_err(failed(&place))?;
        Ok(Kernel {
            function,
            name: source.name.clone(),
            table: source.table,
            _module: module,
        })
    }

    /// Enqueues it.
    pub fn launch(
        &self,
        blocks: u32,
        addresses: &[u64],
        stream: sys::CUstream,
    ) -> Result<(), EngineError> {
        let mut addresses = addresses.to_vec();
        // The addresses after the first of a structure are part of it.
        let parameters = addresses.iter_mut().enumerate();
        let parameters = parameters.filter(|(n, _)| *n == 0 || *n >= self.table);
        let mut parameters: Vec<*mut c_void> =
            parameters.map(|(_, a)| (&raw mut *a).cast()).collect();
        // SAFETY: the plan has a buffer for each parameter, of the size that the kernel goes through.
        unsafe {
            driver::launch_kernel(
                self.function,
                (blocks, 1, 1),
                (THREADS as u32, 1, 1),
                0,
                stream,
                &mut parameters,
            )
        }
        .map_err(failed(&format!("kernel {}", self.name)))
    }
}

/// Code on a device.
#[derive(Debug)]
struct Module {
    gpu: Arc<Gpu>,
    module: sys::CUmodule,
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: nobody launches its kernels any more.
        let unloaded = self.gpu.synchronize().is_ok()
            && unsafe { driver::module::unload(self.module) }.is_ok();
        if !unloaded {
            tracing::debug!("{NAME}: a module was not unloaded");
        }
    }
}
