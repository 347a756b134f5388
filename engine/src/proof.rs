//! Proof that two models compute the same, and signs of life.

use bcosc_ir::{InterpreterError, Model, Tensor, Tensors};
use rayon::prelude::*;
use serde::Serialize;

use crate::compare::{Agreement, CompareError};
use crate::{InputShapes, Network, Session};

/// The outputs of one run, in the order of the graph.
pub type Outputs = Vec<(String, Tensor)>;

/// What a proof found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProofFigures {
    /// Over all outputs and samples. Every output has to agree by itself.
    pub overall: Agreement,
    /// Over all samples, by the reference's name of the output, in the order of the graph.
    pub outputs: Vec<(String, Agreement)>,
    /// How many runs were compared.
    pub samples: usize,
    /// The tolerance.
    pub rtol: f64,
}

/// Two models were not shown to compute the same.
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
        /// How many the reference has.
        reference: usize,
        /// How many the candidate has.
        candidate: usize,
    },
    /// The models were run on different numbers of samples.
    #[error("{reference} samples of the reference, {candidate} of the candidate")]
    SampleCount {
        /// How many times the reference was run.
        reference: usize,
        /// How many times the candidate was run.
        candidate: usize,
    },
    /// The reference cannot be run.
    #[error("the reference does not run: {0}")]
    Reference(InterpreterError),
    /// The candidate cannot be run.
    #[error("the candidate does not run: {0}")]
    Candidate(InterpreterError),
}

impl ProofFigures {
    /// Whether every output lies within the tolerance.
    fn agree(&self) -> bool {
        let agrees = |(_, output): &(String, Agreement)| output.within(self.rtol);
        !self.outputs.is_empty() && self.outputs.iter().all(agrees)
    }

    /// What speaks against the models computing the same, in words.
    pub fn difference(&self) -> String {
        let Agreement {
            max_abs,
            max_relative,
            finite,
            elements,
            ..
        } = self.overall;
        if elements == 0 {
            return "there is an output without elements, which proves nothing".to_owned();
        }
        if !finite {
            return "there are outputs that are not finite".to_owned();
        }
        let zero = self.outputs.iter().find(|(_, output)| output.zero);
        if let Some((name, _)) = zero.filter(|_| max_relative <= self.rtol) {
            return format!("output `{name}` is 0 everywhere in both, so nothing was compared");
        }
        let rtol = self.rtol;
        format!(
            "the outputs differ by up to {max_abs:.3e}, relatively {max_relative:.3e} (tolerance {rtol:.1e})"
        )
    }
}

/// Runs both models, at the same time, and compares their outputs by position.
///
/// Samples are paired by position too: they hold the same data, as each model takes it.
pub fn prove(
    reference: &Model,
    candidate: &Model,
    reference_inputs: &[Tensors],
    candidate_inputs: &[Tensors],
    rtol: f64,
) -> Result<ProofFigures, ProofError> {
    let (expected, found) = rayon::join(
        || run_all(reference, reference_inputs),
        || run_all(candidate, candidate_inputs),
    );
    let expected = expected.map_err(ProofError::Reference)?;
    compare(&expected, &found.map_err(ProofError::Candidate)?, rtol)
}

/// Runs a model on each sample. Samples of the same shapes share a session; sessions run side by side.
pub fn run_all(model: &Model, samples: &[Tensors]) -> Result<Vec<Outputs>, InterpreterError> {
    let network = Network::load(model)?;
    let mut groups: Vec<(InputShapes, Vec<usize>)> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let shapes = shapes_of(sample);
        match groups.iter_mut().find(|(known, _)| *known == shapes) {
            Some((_, members)) => members.push(index),
            None => groups.push((shapes, vec![index])),
        }
    }
    let run = |(shapes, members): &(InputShapes, Vec<usize>)| {
        let session = network.session(shapes)?;
        let run = |&index: &usize| ordered(&session, &samples[index]);
        Ok(members.par_iter().map(run).collect::<Vec<_>>())
    };
    let ran: Vec<Result<Vec<Result<Outputs, _>>, _>> = groups.par_iter().map(run).collect();
    // In order, so that of several errors the same one is told each time.
    let mut results: Vec<Option<Outputs>> = vec![None; samples.len()];
    for ((_, members), outputs) in groups.iter().zip(ran) {
        for (&index, outputs) in members.iter().zip(outputs?) {
            results[index] = Some(outputs?);
        }
    }
    Ok(results.into_iter().flatten().collect())
}

fn shapes_of(sample: &Tensors) -> InputShapes {
    sample
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims()))
        .collect()
}

fn ordered(session: &Session, sample: &Tensors) -> Result<Outputs, InterpreterError> {
    let mut values = session.run_wide(sample)?;
    let named = session
        .outputs()
        .iter()
        .filter_map(|name| values.remove_entry(name));
    Ok(named.collect())
}

/// Compares what two models computed, output by output and sample by sample.
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
