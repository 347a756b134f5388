//! A device, its libraries, and the compiler of its kernels.

use std::ffi::{CString, c_int};

use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::cudnn::{result as cudnn, sys as dnn};
use cudarc::driver::result as driver;
use cudarc::driver::sys as cu;
use cudarc::nvrtc::result as nvrtc;
use cudarc::nvrtc::sys as nvrtc_sys;

use crate::Result;

/// A device with its libraries; everything is given back when the process ends.
pub struct Gpu {
    /// What everything is enqueued on.
    pub stream: cu::CUstream,
    /// Convolutions.
    pub cudnn: dnn::cudnnHandle_t,
    /// Products of matrices.
    pub lt: lt_sys::cublasLtHandle_t,
    architecture: Architecture,
}

/// What kernels are compiled for.
enum Architecture {
    /// The device's own, as machine code.
    Own(c_int),
    /// One that is older, as code that the driver compiles for the device.
    Older(c_int),
}

impl Gpu {
    /// Opens the libraries and a device.
    pub fn open(number: c_int) -> Result<Self> {
        open_libraries()?;
        driver::init()?;
        let device = driver::device::get(number)?;
        // SAFETY: the device is there, and everything is made before it is used.
        unsafe {
            driver::ctx::set_current(driver::primary_ctx::retain(device)?)?;
            use cu::CUdevice_attribute as Attribute;
            let number = |which| driver::device::get_attribute(device, which);
            let major = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking)?;
            let version = cudnn::get_version();
            if version < 90_000 {
                return Err(format!(
                    "cuDNN 9 is needed, and the system's has version number {version}"
                )
                .into());
            }
            let cudnn = cudnn::create_handle()?;
            cudnn::set_stream(cudnn, stream.cast())?;
            Ok(Gpu {
                stream,
                cudnn,
                lt: lt::create_handle()?,
                architecture: architecture(10 * major + minor)?,
            })
        }
    }

    /// Compiles CUDA C and loads it; it stays until the process ends.
    pub fn load(&self, text: &[u8], options: &[&str]) -> Result<cu::CUmodule> {
        let program = nvrtc::create_program(&CString::new(text)?, Some(c"kernels.cu"))?;
        let architecture = match self.architecture {
            Architecture::Own(number) => format!("--gpu-architecture=sm_{number}"),
            Architecture::Older(number) => format!("--gpu-architecture=compute_{number}"),
        };
        let mut all = vec![architecture, "--std=c++17".to_owned()];
        all.extend(options.iter().map(|&option| option.to_owned()));
        // SAFETY: the program was just made; its code is the compiler's.
        unsafe {
            if nvrtc::compile_program(program, &all).is_err() {
                let log = nvrtc::get_program_log(program)?;
                let log: Vec<u8> = log.iter().map(|c| *c as u8).collect();
                return Err(String::from_utf8_lossy(&log).into_owned().into());
            }
            let code = match self.architecture {
                Architecture::Own(_) => {
                    let mut size = 0;
                    nvrtc_sys::nvrtcGetCUBINSize(program, &raw mut size).result()?;
                    let mut code = vec![0; size];
                    nvrtc_sys::nvrtcGetCUBIN(program, code.as_mut_ptr()).result()?;
                    code
                }
                Architecture::Older(_) => nvrtc::get_ptx(program)?,
            };
            Ok(driver::module::load_data(code.as_ptr().cast())?)
        }
    }
}

/// Opens the libraries, since cudarc panics where one is missing. What is newer than the driver does not run on it.
fn open_libraries() -> Result<()> {
    open(&["libcuda.so.1", "nvcuda.dll"])?;
    let mut newest = 0;
    // SAFETY: the driver is open, and writes one number.
    unsafe { cu::cuDriverGetVersion(&raw mut newest) }.result()?;
    let cuda: &[i32] = if newest < 13_000 { &[12] } else { &[13, 12] };
    for stem in ["libnvrtc.so", "libcublasLt.so"] {
        let mut names: Vec<String> = cuda.iter().map(|v| format!("{stem}.{v}")).collect();
        names.push(stem.to_owned());
        open(&names)?;
    }
    open(&["libcudnn.so.9", "libcudnn.so"])
}

/// Opens the first of a library's names that is there. It stays open.
fn open(names: &[impl AsRef<str>]) -> Result<()> {
    // SAFETY: the constructors of these libraries have no conditions.
    let opened = names
        .iter()
        .find_map(|name| unsafe { libloading::Library::new(name.as_ref()) }.ok());
    let missing = || {
        format!(
            "there is no {}; --help says how to get it",
            names[0].as_ref()
        )
    };
    std::mem::forget(opened.ok_or_else(missing)?);
    Ok(())
}

/// That of a device if NVRTC knows it, otherwise the newest that it knows and the device has.
fn architecture(device: c_int) -> Result<Architecture> {
    let mut count = 0;
    // SAFETY: one number is written, then as many as it says.
    let known = unsafe {
        nvrtc_sys::nvrtcGetNumSupportedArchs(&raw mut count).result()?;
        let mut known = vec![0; usize::try_from(count)?];
        nvrtc_sys::nvrtcGetSupportedArchs(known.as_mut_ptr()).result()?;
        known
    };
    match known.into_iter().filter(|known| *known <= device).max() {
        Some(newest) if newest == device => Ok(Architecture::Own(device)),
        Some(newest) => Ok(Architecture::Older(newest)),
        None => Err(format!(
            "this version of NVRTC has no kernels for compute capability {device}"
        )
        .into()),
    }
}
