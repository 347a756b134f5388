//! Comparison of two models on samples.

use bcosc_ir::{Model, Tensors};
use serde::Serialize;

use crate::compare::{Agreement, CompareError};
use crate::runs::{Outputs, run_all};
use crate::{Engine, EngineError};

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProofFigures {
    /// Over all outputs and samples. Each output must agree on its own.
    pub overall: Agreement,
    /// Over all samples, by the reference's name of the output, in the order of the graph.
    pub outputs: Vec<(String, Agreement)>,
    /// Number of samples.
    pub samples: usize,
    /// The tolerance.
    pub rtol: f64,
}

/// A failed comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The outputs differ by more than the tolerance.
    #[error("{}", .0.difference())]
    Differs(Box<ProofFigures>),
    /// An output is of another type or shape than in the reference.
    #[error("output `{output}`: {error}")]
    Type {
        /// The reference's name of the output.
        output: String,
        /// How it differs.
        error: CompareError,
    },
    /// The models have different numbers of outputs.
    #[error("the reference has {reference} outputs, the candidate {candidate}")]
    OutputCount {
        /// Number of outputs of the reference.
        reference: usize,
        /// Number of outputs of the candidate.
        candidate: usize,
    },
    /// The models were run on different numbers of samples.
    #[error("the reference has {reference} samples, the candidate {candidate}")]
    SampleCount {
        /// Number of samples of the reference.
        reference: usize,
        /// Number of samples of the candidate.
        candidate: usize,
    },
    /// The reference cannot be run.
    #[error("the reference cannot be run: {0}")]
    Reference(EngineError),
    /// The candidate cannot be run.
    #[error("the candidate cannot be run: {0}")]
    Candidate(EngineError),
}

impl ProofFigures {
    /// Whether every output is within the tolerance.
    fn agree(&self) -> bool {
        let agrees = |(_, output): &(String, Agreement)| output.within(self.rtol);
        !self.outputs.is_empty() && self.outputs.iter().all(agrees)
    }

    /// A description of the difference.
    pub fn difference(&self) -> String {
        let Agreement {
            max_abs,
            max_relative,
            finite,
            elements,
            ..
        } = self.overall;
        if elements == 0 {
            return "there is an output without elements".to_owned();
        }
        if !finite {
            return "there are infinite or NaN outputs".to_owned();
        }
        let zero = self.outputs.iter().find(|(_, output)| output.zero);
        if let Some((name, _)) = zero.filter(|_| max_relative <= self.rtol) {
            return format!("output `{name}` is all zeros in both models");
        }
        let rtol = self.rtol;
        format!(
            "outputs differ: max |d| {max_abs:.3e}, relative {max_relative:.3e} (tolerance {rtol:.1e})"
        )
    }
}

/// Runs both models concurrently, and compares their outputs by position.
///
/// Samples are also paired by position: the same data, encoded for each model.
pub fn prove(
    engine: &dyn Engine,
    reference: &Model,
    candidate: &Model,
    reference_inputs: &[Tensors],
    candidate_inputs: &[Tensors],
    rtol: f64,
) -> Result<ProofFigures, ProofError> {
    let (expected, found) = rayon::join(
        || run_all(engine, reference, reference_inputs),
        || run_all(engine, candidate, candidate_inputs),
    );
    let expected = expected.map_err(ProofError::Reference)?;
    compare(&expected, &found.map_err(ProofError::Candidate)?, rtol)
}

/// Compares the outputs of two models for all samples.
pub fn compare(
    reference: &[Outputs],
    candidate: &[Outputs],
    rtol: f64,
) -> Result<ProofFigures, ProofError> {
    if reference.len() != candidate.len() {
        let (reference, candidate) = (reference.len(), candidate.len());
        return Err(ProofError::SampleCount {
            reference,
            candidate,
        });
    }
    let mut parts: Vec<(String, Vec<Agreement>)> = Vec::new();
    for (expected, found) in reference.iter().zip(candidate) {
        if expected.len() != found.len() {
            let (reference, candidate) = (expected.len(), found.len());
            return Err(ProofError::OutputCount {
                reference,
                candidate,
            });
        }
        for (position, ((name, expected), (_, found))) in expected.iter().zip(found).enumerate() {
            let agreement =
                Agreement::between(expected, found).map_err(|error| ProofError::Type {
                    output: name.clone(),
                    error,
                })?;
            match parts.get_mut(position) {
                Some((_, agreements)) => agreements.push(agreement),
                None => parts.push((name.clone(), vec![agreement])),
            }
        }
    }
    let outputs: Vec<(String, Agreement)> = parts
        .into_iter()
        .map(|(name, parts)| (name, Agreement::overall(parts)))
        .collect();
    let overall = Agreement::overall(outputs.iter().map(|(_, agreement)| *agreement));
    let figures = ProofFigures {
        overall,
        outputs,
        samples: reference.len(),
        rtol,
    };
    match figures.agree() {
        true => Ok(figures),
        false => Err(ProofError::Differs(Box::new(figures))),
    }
}
