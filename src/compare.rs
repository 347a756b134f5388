//! Comparing the outputs of two models on seeded images.

use bcosc_engine::{Engine, Outputs, ProofError, ProofFigures, compare, run_all};
use bcosc_ir::{Model, Tensor};
use bcosc_passes::{InputContract, Normalization};
use serde::Serialize;

use crate::load::{Read, read};
use crate::{DeviceChoice, Error, InputShape, Metadata, RunError, Source, Verification, samples};

/// The comparison of two models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The metrics, by the name of the output in the reference.
    pub figures: ProofFigures,
    /// Whether all outputs are within the tolerance.
    pub agrees: bool,
    /// The bcosc metadata of the reference, if any.
    pub reference: Option<Metadata>,
    /// The bcosc metadata of the candidate, if any.
    pub candidate: Option<Metadata>,
}

/// Runs two models on the same seeded images and compares their outputs.
///
/// Images are converted to the input format of each model, and the logit bias of converted models is
/// subtracted. A model that takes normalised images gets the mean and standard deviation from the metadata of
/// either model.
///
/// # Errors
/// If a model cannot be read or run, or the models differ in number, type or shape of outputs.
/// Different outputs are not an error: see [`Comparison::agrees`].
pub fn compare_models(
    reference: impl Into<Source>,
    candidate: impl Into<Source>,
    shapes: &[InputShape],
    verification: &Verification,
) -> Result<Comparison, Error> {
    let device = DeviceChoice::Cpu;
    compare_models_on(device, reference, candidate, shapes, verification)
}

/// As [`compare_models`], on a device.
///
/// # Errors
/// As [`compare_models`], and if the device cannot be used.
pub fn compare_models_on(
    device: DeviceChoice,
    reference: impl Into<Source>,
    candidate: impl Into<Source>,
    shapes: &[InputShape],
    verification: &Verification,
) -> Result<Comparison, Error> {
    let engine = device.engine()?;
    let read = |source| -> Result<(Read, Option<Metadata>), Error> {
        let read = read(source, shapes)?;
        let made = Metadata::read(&read.model, &read.label)?;
        Ok((read, made))
    };
    let (a, made_a) = read(reference.into())?;
    let (b, made_b) = read(candidate.into())?;
    let normalization = [&made_b, &made_a]
        .into_iter()
        .flatten()
        .find_map(Metadata::normalization);
    let run = |read: &Read, made: &Option<Metadata>| {
        let outputs = run(
            &*engine,
            &read.model,
            made.as_ref(),
            normalization.as_ref(),
            verification,
        );
        outputs.map_err(|source| Error::Run {
            what: read.label.clone(),
            source,
        })
    };
    let (expected, found) = rayon::join(|| run(&a, &made_a), || run(&b, &made_b));
    let (figures, agrees) = match compare(&expected?, &found?, verification.rtol) {
        Ok(figures) => (figures, true),
        Err(ProofError::Differs(figures)) => (*figures, false),
        Err(error) => {
            let problem = format!("cannot be compared with {}: {error}", a.label);
            return Err(Error::Input {
                model: b.label,
                problem,
            });
        }
    };
    Ok(Comparison {
        figures,
        agrees,
        reference: made_a,
        candidate: made_b,
    })
}

fn run(
    engine: &dyn Engine,
    model: &Model,
    made: Option<&Metadata>,
    normalization: Option<&Normalization>,
    verification: &Verification,
) -> Result<Vec<Outputs>, RunError> {
    let taken = made.map_or(InputContract::Same, |made| made.input);
    let samples = samples::draw(model, taken, normalization, verification)?;
    let mut runs = run_all(engine, model, &samples)?;
    let bias = made.map_or(0.0, |made| made.logit_bias);
    if bias != 0.0 {
        for (_, output) in runs.iter_mut().flatten() {
            if let Some(plain) = minus(output, bias) {
                *output = plain;
            }
        }
    }
    Ok(runs)
}

fn minus(tensor: &Tensor, bias: f64) -> Option<Tensor> {
    let elements: Vec<f64> = tensor
        .to_f64s()
        .ok()?
        .into_iter()
        .map(|x| x - bias)
        .collect();
    Tensor::floats(tensor.dtype(), &tensor.dims(), &elements)
}
