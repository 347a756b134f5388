//! Pictures in a model's input format, many at once.
//!
//! An input format maps each channel by itself, and a picture has 256 values. So the encoding of [`Intake`] is computed once for
//! each value, and looked up.

use bcosc_ir::{DataType, Tensor};

use crate::vision::images::Pixels;
use crate::vision::predict::run_error;
use crate::{Error, Intake, RunError};

/// Values of a channel.
const VALUES: usize = 256;

/// The encoding of pixels for a model.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    intake: Intake,
    /// For each channel of the input what becomes of each value; it is made from the picture's channel of the same
    /// number, counted around.
    tables: Vec<[f32; VALUES]>,
}

impl Encoder {
    /// Prepares the encoding.
    ///
    /// # Errors
    /// [`Error::Run`] if the input is not floating point.
    pub fn new(intake: &Intake) -> Result<Self, Error> {
        let failed = |source| run_error(&intake.name, source);
        let ramp = (0..VALUES).map(|value| value as u8);
        let ramp = Pixels {
            channels: intake.channels,
            height: 1,
            width: VALUES,
            data: ramp.flat_map(|v| vec![v; intake.channels]).collect(),
        };
        let encoded = intake.encode(&ramp.images()).map_err(failed)?;
        let numbers = encoded
            .to_f32s()
            .map_err(|e| failed(RunError::Values(e.to_string())))?;
        let (chunks, _) = numbers.as_chunks();
        Ok(Encoder {
            intake: intake.clone(),
            tables: chunks.to_vec(),
        })
    }

    /// Numbers that a picture of this size becomes.
    pub fn length(&self, [height, width]: [usize; 2]) -> usize {
        self.tables.len() * height * width
    }

    /// Appends a picture, `[C, H, W]`.
    pub fn append(&self, pixels: &Pixels, batch: &mut Vec<f32>) {
        for (channel, table) in self.tables.iter().enumerate() {
            let plane = pixels.plane(channel % pixels.channels);
            batch.extend(plane.map(|value| table[usize::from(value)]));
        }
    }

    /// A batch of appended pictures as the model takes it. Numbers of double precision inputs are rounded to single
    /// precision.
    ///
    /// # Errors
    /// [`Error::Run`] if the input is not floating point.
    pub fn tensor(&self, size: [usize; 2], batch: Vec<f32>) -> Result<Tensor, Error> {
        let count = batch.len() / self.length(size).max(1);
        let dims = [count, self.tables.len(), size[0], size[1]].map(|d| d as u64);
        let intake = &self.intake;
        let tensor = floats(intake, &dims, batch).and_then(|tensor| intake.arranged(tensor));
        tensor.map_err(|source| run_error(&intake.name, source))
    }

    /// Targets `[N, K]` in the type of the input.
    ///
    /// # Errors
    /// [`Error::Run`] if the input is not floating point.
    pub fn targets(&self, classes: usize, targets: Vec<f32>) -> Result<Tensor, Error> {
        let count = targets.len() / classes.max(1);
        let dims = [count, classes].map(|d| d as u64);
        let tensor = floats(&self.intake, &dims, targets);
        tensor.map_err(|source| run_error(&self.intake.name, source))
    }
}

/// Numbers in the type of the input.
fn floats(intake: &Intake, dims: &[u64], numbers: Vec<f32>) -> Result<Tensor, RunError> {
    match intake.dtype() {
        DataType::Float => Ok(Tensor::f32s(dims, numbers)),
        dtype => {
            let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
            Tensor::floats(dtype, dims, &numbers).ok_or_else(|| intake.not_floating())
        }
    }
}
