//! Running models and comparing their outputs.
//!
//! An [`Engine`] runs models; [`default_engine`] is the one that is always there, and with the feature `ort`
//! `onnx_runtime` is another. [`EngineInterpreter`] answers
//! what passes ask about graphs. Nothing else here depends on which engine runs: a proof draws [`Samples`] for
//! two models and compares what they compute, [`Sensitivity`] looks at outputs alone.
//!
//! ```
//! use bcosc_engine::{Encoding, ProofError, Samples, default_engine, prove};
//! use bcosc_ir::Model;
//!
//! fn same(original: &Model, converted: &Model) -> Result<bool, Box<dyn std::error::Error>> {
//!     let samples = Samples::default();
//!     let taken = samples.draw(original, &Encoding::Raw)?;
//!     let doubled = samples.draw(converted, &Encoding::WithInverse)?;
//!     match prove(default_engine(), original, converted, &taken, &doubled, 1e-4) {
//!         Ok(figures) => Ok(figures.overall.top1 == 1.0),
//!         Err(ProofError::Differs(_)) => Ok(false),
//!         Err(error) => Err(error.into()),
//!     }
//! }
//! ```

mod compare;
mod device;
mod encoding;
mod engine;
mod error;
mod feedback;
mod interpreter;
#[cfg(feature = "ort")]
mod ort;
pub mod ports;
mod precision;
mod proof;
mod runs;
mod samples;
mod sensitivity;
mod tract;
mod value;

pub use compare::{Agreement, CompareError};
pub use device::Device;
pub use encoding::Encoding;
pub use engine::{Engine, InputShapes, Network, Port, Session, SessionOptions};
pub use error::{EngineError, Unsupported};
pub use feedback::Feedback;
pub use interpreter::EngineInterpreter;
pub use precision::Precision;
pub use proof::{ProofError, ProofFigures, compare, prove};
pub use runs::{Outputs, run_all};
pub use samples::{SampleError, Samples, nudged};
pub use sensitivity::Sensitivity;
pub use value::{Stored, Value};

#[cfg(feature = "ort")]
use self::ort::OnnxRuntime;
use bcosc_ir::Model;

// The only place that selects the default engine and the type inference.
use tract::{Tract, facts};

static TRACT: Tract = Tract::new();

/// The built-in engine, which runs on the CPU.
pub fn default_engine() -> &'static dyn Engine {
    &TRACT
}

/// The built-in engine for networks that have weights in common with a model: these, and what sessions compute from
/// them, are kept in memory once, as long as the engine or a network of it lives. Results are those of
/// [`default_engine`].
pub fn sharing_engine(model: &Model) -> Box<dyn Engine> {
    Box::new(Tract::sharing(model))
}

/// An installed ONNX Runtime, which is loaded at the first call.
///
/// It looks for the library at `ORT_DYLIB_PATH`; without that variable in the active Python environment
/// (`VIRTUAL_ENV` or `CONDA_PREFIX`), then where the system keeps libraries. All sessions of a network on as many
/// threads share its weights, whatever their shapes; runs of these sessions take turns.
///
/// # Errors
/// [`EngineError::Unavailable`] where there is no library of a usable version, or for a CUDA device none with CUDA.
#[cfg(feature = "ort")]
pub fn onnx_runtime(device: Device) -> Result<Box<dyn Engine>, EngineError> {
    Ok(Box::new(OnnxRuntime::new(device)?))
}

/// An interpreter for passes that computes with the default engine.
pub fn default_interpreter() -> &'static EngineInterpreter<'static> {
    static INTERPRETER: EngineInterpreter<'static> = EngineInterpreter::new(&TRACT);
    &INTERPRETER
}
