//! Outputs of a model on several samples.

use bcosc_ir::{Model, Tensor, Tensors};
use rayon::prelude::*;

use crate::{Engine, EngineError, InputShapes, Session, SessionOptions, Value};

/// The outputs of one run, in the order of the graph.
pub type Outputs = Vec<(String, Tensor)>;

/// Loads a model once and runs it on each sample, in parallel; outputs are not rounded to 16 bits. Samples of the same
/// shapes share a session.
///
/// # Errors
/// Of several, that of the first sample.
pub fn run_all(
    engine: &dyn Engine,
    model: &Model,
    samples: &[Tensors],
) -> Result<Vec<Outputs>, EngineError> {
    let network = engine.load(model)?;
    let mut groups: Vec<(InputShapes, Vec<usize>)> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let shapes = shapes_of(sample);
        match groups.iter_mut().find(|(known, _)| *known == shapes) {
            Some((_, members)) => members.push(index),
            None => groups.push((shapes, vec![index])),
        }
    }
    let options = SessionOptions {
        unrounded: true,
        ..SessionOptions::default()
    };
    type Ran = Result<Outputs, EngineError>;
    let run = |(shapes, members): &(InputShapes, Vec<usize>)| -> Result<Vec<Ran>, EngineError> {
        let session = network.session(shapes, &options)?;
        let run = |&index: &usize| ordered(session.as_ref(), &samples[index]);
        Ok(members.par_iter().map(run).collect())
    };
    let ran: Vec<_> = groups.par_iter().map(run).collect();
    // In order, so that of several errors the same one is reported each time.
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

fn ordered(session: &dyn Session, sample: &Tensors) -> Result<Outputs, EngineError> {
    let given = session.inputs().iter().map(|port| {
        let tensor = sample.get(&port.name).cloned();
        let missing = || EngineError::MissingInput(port.name.clone());
        tensor.map(Value::from).ok_or_else(missing)
    });
    let values = session.run(given.collect::<Result<_, _>>()?)?;
    let named = session.outputs().iter().zip(values);
    named
        .map(|(port, value)| Ok((port.name.clone(), value.to_tensor()?)))
        .collect()
}
