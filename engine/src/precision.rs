//! How exactly engines compute.

use std::fmt;
use std::str::FromStr;

use crate::EngineError;

/// How products of single-precision numbers are rounded. Weights stay in single precision whatever it is, so training goes on
/// from what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Precision {
    /// Everything in single precision; `fp32`.
    #[default]
    Fp32,
    /// Factors to TF32 (10 bits), sums in single precision; `tf32`.
    Tf32,
    /// Factors and results to bfloat16 (7 bits), sums and everything between in single precision; `bf16`.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::Fp32, Precision::Tf32, Precision::Bf16];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        }
    }

    /// Refuses what an engine without tensor cores does not compute in.
    ///
    /// # Errors
    /// [`EngineError::Precision`] for anything but single precision.
    pub fn require_single(self, engine: &'static str) -> Result<(), EngineError> {
        match self {
            Precision::Fp32 => Ok(()),
            precision => Err(EngineError::Precision {
                engine,
                precision,
                reason: "it has fp32 alone; choose that, or bcosc's own engine on a CUDA device"
                    .to_owned(),
            }),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let found = Precision::ALL.into_iter().find(|p| p.name() == text);
        found.ok_or_else(|| EngineError::UnknownPrecision(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use bcosc_ir::{DataType, ModelBuilder};

    use super::*;
    use crate::{SessionOptions, default_engine};

    #[test]
    fn precisions_are_read_as_they_are_written() {
        for precision in Precision::ALL {
            assert_eq!(
                precision.to_string().parse::<Precision>().unwrap(),
                precision
            );
        }
        for text in ["", "fp16", "FP32", "float32"] {
            let error = text.parse::<Precision>().unwrap_err();
            assert!(
                error.to_string().contains("`fp32`, `tf32` or `bf16`"),
                "{error}"
            );
        }
    }

    #[test]
    fn an_engine_without_a_precision_refuses_it() {
        let model = ModelBuilder::new(17)
            .input("x", DataType::Float, "2")
            .op("Relu", &["x"], "y", [])
            .output_as("y", DataType::Float, "2")
            .finish()
            .unwrap();
        let network = default_engine().load(&model).unwrap();
        let shapes = [("x".to_owned(), vec![2])].into();
        let session = |precision| {
            let options = SessionOptions {
                precision,
                ..SessionOptions::default()
            };
            network.session(&shapes, &options).map(|_| ())
        };
        assert!(session(Precision::Fp32).is_ok());
        for precision in [Precision::Tf32, Precision::Bf16] {
            let error = session(precision).unwrap_err();
            let named =
                matches!(&error, EngineError::Precision { precision: p, .. } if *p == precision);
            assert!(named, "{error}");
            assert!(error.to_string().contains("CUDA"), "{error}");
        }
    }
}
