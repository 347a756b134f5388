//! Kernels compiled by NVRTC, for one architecture.

use std::ffi::{CStr, CString, c_char};

use bcosc_engine::{EngineError, Precision};
use cudarc::nvrtc::{result, sys};

use super::libraries::{Library, NAME, require};
use crate::kernels::PRELUDE;
use crate::plan::Source;

/// The architecture of a device: 90 for compute capability 9.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture(pub u32);

/// Options of the compiler, whatever the architecture is. With bf16, kernels that divide would take longer than their memory
/// traffic; a division that is off by two units in the last place of single precision is exact next to bf16.
pub(super) fn options(precision: Precision) -> &'static [&'static str] {
    match precision {
        Precision::Fp32 | Precision::Tf32 => &["--std=c++17"],
        Precision::Bf16 => &["--std=c++17", "--prec-div=false"],
    }
}

/// A compiler of kernels.
#[derive(Clone, Debug)]
pub struct Compiler {
    version: (i32, i32),
    architectures: Vec<Architecture>,
}

impl Compiler {
    /// Opens NVRTC.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] if it is missing.
    pub fn new() -> Result<Self, EngineError> {
        require(&[Library::Nvrtc])?;
        let mut version = (0, 0);
        // SAFETY: the library is open, and writes two numbers.
        let status = unsafe { sys::nvrtcVersion(&mut version.0, &mut version.1) };
        status.result().map_err(failed)?;
        let mut count = 0;
        // SAFETY: the library is open, and writes one number.
        let status = unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) };
        status.result().map_err(failed)?;
        let mut found = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for as many numbers as it said.
        let status = unsafe { sys::nvrtcGetSupportedArchs(found.as_mut_ptr()) };
        status.result().map_err(failed)?;
        let architectures = found.into_iter().filter_map(|n| u32::try_from(n).ok());
        Ok(Compiler {
            version,
            architectures: architectures.map(Architecture).collect(),
        })
    }

    /// Its version, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The architectures that it knows.
    pub fn architectures(&self) -> &[Architecture] {
        &self.architectures
    }

    /// The machine code of a kernel. A device that is newer than the compiler gets the newest intermediate code, which
    /// its driver compiles.
    ///
    /// # Errors
    /// If the kernel does not compile; the message is the compiler's.
    pub fn compile(
        &self,
        kernel: &Source,
        to: Architecture,
        precision: Precision,
    ) -> Result<Vec<u8>, EngineError> {
        let known = self.architectures.contains(&to);
        let newest = self
            .architectures
            .iter()
            .copied()
            .filter(|a| *a <= to)
            .max();
        let Some(target) = newest else {
            return Err(EngineError::Unavailable {
                engine: NAME,
                reason: format!(
                    "this version of NVRTC has no kernels for architecture sm_{}",
                    to.0
                ),
            });
        };
        let option = match known {
            true => format!("--gpu-architecture=sm_{}", target.0),
            false => format!("--gpu-architecture=compute_{}", target.0),
        };
        let invalid = |_| EngineError::Load {
            place: format!("kernel {}", kernel.name),
            reason: "its text has a zero byte".to_owned(),
        };
        let text = CString::new(format!("{PRELUDE}{}", kernel.text)).map_err(invalid)?;
        let name = CString::new(format!("{}.cu", kernel.name)).map_err(invalid)?;
        let program = Program(result::create_program(&text, Some(&name)).map_err(failed)?);
        let all: Vec<String> = [option]
            .into_iter()
            .chain(options(precision).iter().map(|&o| o.to_owned()))
            .collect();
        // SAFETY: the program was just made.
        let compiled = unsafe { result::compile_program(program.0, &all) };
        if compiled.is_err() {
            // SAFETY: as above.
            let log = unsafe { result::get_program_log(program.0) }.map_err(failed)?;
            return Err(EngineError::Load {
                place: format!("kernel {}", kernel.name),
                reason: message(&log),
            });
        }
        match known {
            true => program.machine_code(),
            // SAFETY: the program is compiled.
            false => unsafe { result::get_ptx(program.0) }
                .map(|code| code.into_iter().map(|c| c as u8).collect())
                .map_err(failed),
        }
    }
}

/// A program of the compiler, given back at the end.
struct Program(sys::nvrtcProgram);

impl Program {
    fn machine_code(&self) -> Result<Vec<u8>, EngineError> {
        let mut size = 0;
        // SAFETY: the program is compiled, and one number is written.
        let status = unsafe { sys::nvrtcGetCUBINSize(self.0, &mut size) };
        status.result().map_err(failed)?;
        let mut code = vec![0u8; size];
        // SAFETY: there is room for as many bytes as it said.
        let status = unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()) };
        status.result().map_err(failed)?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: nobody uses the program any more.
        if let Err(error) = unsafe { result::destroy_program(self.0) } {
            tracing::debug!("{NAME}: NVRTC: {error}");
        }
    }
}

fn message(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|&c| c as u8).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy);
    text.unwrap_or_default().trim().to_owned()
}

fn failed(error: result::NvrtcError) -> EngineError {
    EngineError::Run {
        place: "NVRTC".to_owned(),
        reason: error.to_string(),
    }
}
