//! Seeded random inputs for a model.

mod pictures;

use std::collections::BTreeMap;

use bcosc_ir::{DataType, Dim, Model, Tensor, TensorError, TensorType, Tensors};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

use crate::Encoding;
use pictures::picture;

/// Default sizes of dynamic dimensions: of pictures, and of other inputs.
const SIDE: u64 = 224;
const LENGTH: u64 = 16;

/// Maximum number of elements of an input.
const LARGEST_INPUT: u64 = 1 << 31;

/// Which inputs to draw. Equal values give equal inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Number of samples. If the batch size is symbolic, the second sample is a batch of
    /// two, and the others are batches of one.
    pub count: usize,
    /// Shapes of inputs, by name, for dimensions that are not fixed by the model. The first
    /// dimension is taken from here only if there is nothing symbolic to choose it by.
    pub shapes: BTreeMap<String, Vec<u64>>,
}

impl Default for Samples {
    fn default() -> Self {
        Samples {
            seed: 0,
            count: 2,
            shapes: BTreeMap::new(),
        }
    }
}

/// No inputs can be generated for a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("input `{input}`: {problem}")]
pub struct SampleError {
    /// The input.
    pub input: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Samples {
    /// Draws inputs for a model. Floating-point inputs of four dimensions are pictures, distinct
    /// ones throughout, and the same whatever their encoding; other floating-point inputs are normal
    /// deviates. Bytes of four dimensions are pictures in 0..=255, other integers are in 0..10.
    pub fn draw(&self, model: &Model, encoding: &Encoding) -> Result<Vec<Tensors>, SampleError> {
        (0..self.count)
            .map(|sample| self.draw_one(model, encoding, sample))
            .collect()
    }

    fn draw_one(
        &self,
        model: &Model,
        encoding: &Encoding,
        sample: usize,
    ) -> Result<Tensors, SampleError> {
        let batch = if sample == 1 { 2 } else { 1 };
        let mut sizes = BTreeMap::new();
        let mut tensors = Tensors::new();
        for (position, value) in model.graph.inputs().into_iter().enumerate() {
            let name = model.graph.value_name(value).to_owned();
            let draw = Draw {
                samples: self,
                encoding,
                name: &name,
                position,
                sample,
            };
            let declared = model.graph.value_type(value);
            let declared = declared.ok_or_else(|| draw.error("its type is not declared"))?;
            let dims = draw.shape(&declared, batch, &mut sizes)?;
            let tensor = draw.tensor(declared.dtype, &dims)?;
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }
}

/// The same inputs with a rounding error: floating-point elements are changed by one part in 2^23,
/// alternately up and down. The change of the outputs shows how much a model amplifies rounding.
pub fn nudged(samples: &[Tensors]) -> Result<Vec<Tensors>, TensorError> {
    let all = |sample: &Tensors| {
        let moved = sample.iter().map(|(name, x)| Ok((name.clone(), nudge(x)?)));
        moved.collect()
    };
    samples.iter().map(all).collect()
}

fn nudge(tensor: &Tensor) -> Result<Tensor, TensorError> {
    if !matches!(tensor.dtype(), DataType::Float | DataType::Double) {
        return Ok(tensor.clone());
    }
    let mut elements = tensor.to_f64s()?;
    let steps = [f32::EPSILON, -f32::EPSILON].into_iter().cycle();
    for (x, step) in elements.iter_mut().zip(steps) {
        *x *= 1.0 + f64::from(step);
    }
    let moved = Tensor::floats(tensor.dtype(), &tensor.dims(), &elements);
    Ok(moved.unwrap_or_else(|| tensor.clone()))
}

/// One input of one sample.
#[derive(Clone, Copy)]
struct Draw<'a> {
    samples: &'a Samples,
    encoding: &'a Encoding,
    name: &'a str,
    position: usize,
    sample: usize,
}

impl Draw<'_> {
    fn error(&self, problem: impl Into<String>) -> SampleError {
        SampleError {
            input: self.name.to_owned(),
            problem: problem.into(),
        }
    }

    /// Chooses a size for every dimension; dimensions of the same name get the same size.
    fn shape(
        &self,
        declared: &TensorType,
        batch: u64,
        sizes: &mut BTreeMap<String, u64>,
    ) -> Result<Vec<u64>, SampleError> {
        let wanted = self.samples.shapes.get(self.name);
        let unknown = || wanted.map(|dims| vec![Dim::Unknown; dims.len()]);
        let dims = declared.shape.clone().or_else(unknown);
        let dims = dims.ok_or_else(|| self.error("its shape is not declared; give one"))?;
        if let Some(wanted) = wanted.filter(|wanted| wanted.len() != dims.len()) {
            return Err(self.error(format!("it is {declared}, not {wanted:?}")));
        }
        let is_picture = is_picture(declared.dtype, dims.len());
        let channels_last = is_picture && channels_last(&dims);
        let mut shape = Vec::with_capacity(dims.len());
        for (axis, dim) in dims.iter().enumerate() {
            let default = match (axis, is_picture) {
                (0, _) => batch,
                (3, true) if channels_last => 3,
                (1, true) if channels_last => SIDE,
                (1, true) if *self.encoding == Encoding::WithInverse => 6,
                (1, true) => 3,
                (_, true) => SIDE,
                (_, false) => LENGTH,
            };
            let chosen = wanted
                .map(|w| w[axis])
                .filter(|_| axis > 0)
                .unwrap_or(default);
            shape.push(match dim {
                Dim::Known(size) if axis > 0 && wanted.is_some_and(|w| w[axis] != *size) => {
                    return Err(self.error(format!("dimension {axis} is {size}, not {chosen}")));
                }
                Dim::Known(size) => *size,
                Dim::Symbol(symbol) => *sizes.entry(symbol.clone()).or_insert(chosen),
                Dim::Unknown => chosen,
            });
        }
        let elements = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
        match elements {
            Some(elements) if elements <= LARGEST_INPUT => Ok(shape),
            _ => Err(self.error(format!("{shape:?} is too large"))),
        }
    }

    fn tensor(&self, dtype: DataType, dims: &[u64]) -> Result<Tensor, SampleError> {
        let elements = dims.iter().product::<u64>() as usize;
        let mut rng = self.rng(0);
        if is_picture(dtype, dims.len()) && !dtype.is_float() {
            let raw = Draw {
                encoding: &Encoding::Raw,
                ..*self
            };
            let pixels = raw.pictures_as_declared(dims)?;
            let bytes: Vec<u8> = pixels.iter().map(|x| (x * 255.0).round() as u8).collect();
            return Ok(Tensor::from_bytes(dtype, dims, bytes.into()));
        }
        if !dtype.is_float() {
            let bytes = integers(dtype, elements, &mut rng);
            let bytes =
                bytes.ok_or_else(|| self.error(format!("cannot generate samples of {dtype}")))?;
            return Ok(Tensor::from_bytes(dtype, dims, bytes.into()));
        }
        let values: Vec<f64> = match *dims {
            [_, _, _, _] => self.pictures_as_declared(dims)?,
            _ => (&mut rng)
                .sample_iter(StandardNormal)
                .take(elements)
                .collect(),
        };
        let tensor = Tensor::floats(dtype, dims, &values);
        tensor.ok_or_else(|| self.error(format!("cannot generate samples of {dtype}")))
    }

    /// Pictures [N, C, H, W], or [N, H, W, C] if the dimensions suggest it.
    fn pictures_as_declared(&self, dims: &[u64]) -> Result<Vec<f64>, SampleError> {
        let known: Vec<Dim> = dims.iter().map(|&d| Dim::Known(d)).collect();
        let &[n, a, b, c] = dims else {
            return Err(self.error("pictures require four dimensions"));
        };
        let [a, b, c] = [a as usize, b as usize, c as usize];
        if !channels_last(&known) {
            return self.pictures(n, [a, b, c]);
        }
        let (channels, area) = (c, a * b);
        let planar = self.pictures(n, [channels, a, b])?;
        let image = |pixels: &[f64]| -> Vec<f64> {
            let at = |i: usize| pixels[i % channels * area + i / channels];
            (0..pixels.len()).map(at).collect()
        };
        Ok(planar
            .chunks((channels * area).max(1))
            .flat_map(image)
            .collect())
    }

    fn pictures(
        &self,
        count: u64,
        [channels, height, width]: [usize; 3],
    ) -> Result<Vec<f64>, SampleError> {
        let drawn = match self.encoding {
            Encoding::WithInverse if channels % 2 == 1 => {
                return Err(self.error(format!(
                    "[x, 1 - x] has an even number of channels, not {channels}"
                )));
            }
            Encoding::WithInverse => channels / 2,
            Encoding::Raw | Encoding::Normalized { .. } => channels,
        };
        self.encoding
            .check(drawn)
            .map_err(|problem| self.error(problem))?;
        let mut values = Vec::new();
        for image in 0..count {
            let pixels = picture(&mut self.rng(1 + image), drawn, height, width);
            values.append(&mut self.encoding.encode(pixels, drawn));
        }
        Ok(values)
    }

    /// Independent random numbers for every part of every sample.
    fn rng(&self, part: u64) -> Xoshiro256PlusPlus {
        let path = [
            self.samples.seed,
            self.position as u64,
            self.sample as u64,
            part,
        ];
        let mut seed = [0; 32];
        for (bytes, number) in seed.chunks_exact_mut(8).zip(path) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        // The generator's first numbers resemble its seed; drawing a new seed from it mixes them.
        let mut mixer = Xoshiro256PlusPlus::from_seed(seed);
        for _ in 0..32 {
            let _: u64 = mixer.random();
        }
        Xoshiro256PlusPlus::from_rng(&mut mixer)
    }
}

fn is_picture(dtype: DataType, rank: usize) -> bool {
    (dtype.is_float() || dtype == DataType::Uint8) && rank == 4
}

/// Whether dimensions look like [N, H, W, C]: the last is a number of channels, the second is none.
fn channels_last(dims: &[Dim]) -> bool {
    let channels = |dim: Option<&Dim>| matches!(dim.and_then(Dim::known), Some(1 | 3 | 4));
    dims.len() == 4 && channels(dims.last()) && !channels(dims.get(1))
}

/// Little-endian integers in 0..10, or booleans.
fn integers(dtype: DataType, count: usize, rng: &mut Xoshiro256PlusPlus) -> Option<Vec<u8>> {
    let (width, end) = match dtype {
        DataType::Bool => (1, 2),
        DataType::Int8 | DataType::Uint8 => (1, 10),
        DataType::Int16 | DataType::Uint16 => (2, 10),
        DataType::Int32 | DataType::Uint32 => (4, 10),
        DataType::Int64 | DataType::Uint64 => (8, 10),
        _ => return None,
    };
    let numbers = (0..count).map(|_| rng.random_range(0..end as u64));
    Some(
        numbers
            .flat_map(|n| n.to_le_bytes().into_iter().take(width))
            .collect(),
    )
}
