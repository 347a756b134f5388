//! Running graphs: what is known of them before they run, their outputs, and proofs that two
//! graphs compute the same.
//!
//! [`Tract`] infers shapes and constants for passes. A [`Session`] runs a model many times. A proof
//! draws [`Samples`] for two models and compares what they compute:
//!
//! ```
//! use bcosc_engine::{Encoding, ProofError, Samples, prove};
//! use bcosc_ir::Model;
//!
//! fn same(original: &Model, converted: &Model) -> Result<bool, Box<dyn std::error::Error>> {
//!     let samples = Samples::default();
//!     let taken = samples.draw(original, &Encoding::Raw)?;
//!     let doubled = samples.draw(converted, &Encoding::WithInverse)?;
//!     match prove(original, converted, &taken, &doubled, 1e-4) {
//!         Ok(figures) => Ok(figures.overall.top1 == 1.0),
//!         Err(ProofError::Differs(_)) => Ok(false),
//!         Err(error) => Err(error.into()),
//!     }
//! }
//! ```

mod compare;
mod inputs;
mod liveness;
mod pictures;
mod proof;
mod tract;

pub use compare::{Agreement, CompareError};
pub use inputs::{Encoding, SampleError, Samples, nudged};
pub use liveness::{Liveness, LivenessError, liveness};
pub use proof::{Outputs, ProofError, ProofFigures, compare, prove, run_all};
pub use tract::{InputShapes, Network, Session, Tract};
