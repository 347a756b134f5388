//! What the tests of the CNN passes share: small models, and runs with the settings that a pass asks for.

use bcosc_engine::Tract;
use bcosc_ir::{
    Attribute, DataType, Interpreter, Model, ModelBuilder, Tensor, TensorType, Tensors,
};

use crate::testing::{infer, inputs_for, model, noise, weight};
use crate::{Context, InputContract, Normalization, Outcome, Pass, PassError, Settings};

/// A model with an image input `x` of dimensions such as `batch,3,6,8`.
pub(crate) fn image(dims: &str) -> ModelBuilder {
    ModelBuilder::new(17).input("x", DataType::Float, dims)
}

/// Steps that the builder lacks: layers with weights of noise that are named after their output.
pub(crate) trait Layers: Sized {
    /// A convolution with weights of these dimensions.
    fn conv(self, x: &str, y: &str, dims: &[u64], attributes: Vec<Attribute>) -> Self;
    /// The same with a bias.
    fn biased_conv(self, x: &str, y: &str, dims: &[u64], attributes: Vec<Attribute>) -> Self;
    /// `y = x @ w`, [inputs, outputs].
    fn matmul(self, x: &str, y: &str, dims: &[u64]) -> Self;
    /// A `Gemm` with transB and a bias, as PyTorch exports a linear layer.
    fn linear(self, x: &str, y: &str, inputs: u64, outputs: u64) -> Self;
    /// A batch norm with statistics, scales of either sign and a bias.
    fn norm(self, x: &str, y: &str, channels: u64) -> Self;
    /// The finished model with the types of its values.
    fn typed(self, output: &str) -> Model;
}

impl Layers for ModelBuilder {
    fn conv(self, x: &str, y: &str, dims: &[u64], attributes: Vec<Attribute>) -> Self {
        let name = format!("{y}.w");
        self.param(&name, weight(seed(y), dims))
            .op("Conv", &[x, &name], y, attributes)
    }

    fn biased_conv(self, x: &str, y: &str, dims: &[u64], attributes: Vec<Attribute>) -> Self {
        let names = [format!("{y}.w"), format!("{y}.b")];
        self.param(&names[0], weight(seed(y), dims))
            .param(&names[1], weight(seed(y) + 1, &dims[..1]))
            .op("Conv", &[x, &names[0], &names[1]], y, attributes)
    }

    fn matmul(self, x: &str, y: &str, dims: &[u64]) -> Self {
        let name = format!("{y}.w");
        self.param(&name, weight(seed(y), dims))
            .op("MatMul", &[x, &name], y, [])
    }

    fn linear(self, x: &str, y: &str, inputs: u64, outputs: u64) -> Self {
        let names = [format!("{y}.w"), format!("{y}.b")];
        self.param(&names[0], weight(seed(y), &[outputs, inputs]))
            .param(&names[1], weight(seed(y) + 1, &[outputs]))
            .op(
                "Gemm",
                &[x, &names[0], &names[1]],
                y,
                [Attribute::int("transB", 1)],
            )
    }

    fn norm(self, x: &str, y: &str, channels: u64) -> Self {
        let names = ["gamma", "beta", "mean", "var"].map(|part| format!("{y}.{part}"));
        let variances = noise(seed(y), channels).into_iter().map(|v| v.abs() as f32);
        self.param(&names[0], weight(seed(y), &[channels]))
            .param(&names[1], weight(seed(y) + 1, &[channels]))
            .param(&names[2], weight(seed(y) + 2, &[channels]))
            .param(&names[3], Tensor::f32s(&[channels], variances.collect()))
            .op(
                "BatchNormalization",
                &[x, &names[0], &names[1], &names[2], &names[3]],
                y,
                [],
            )
    }

    fn typed(self, output: &str) -> Model {
        let mut model = model(self.output(output));
        infer(&mut model);
        model
    }
}

fn seed(name: &str) -> u64 {
    name.bytes().map(u64::from).sum()
}

/// Settings with an input contract and three channels' normalisation.
pub(crate) fn contract(input: InputContract, absorb_normalization: bool) -> Settings {
    Settings {
        input,
        absorb_normalization,
        normalization: Some(Normalization {
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }),
        ..Settings::default()
    }
}

/// Settings with another exponent.
pub(crate) fn exponent(b: f64) -> Settings {
    Settings {
        b,
        ..Settings::default()
    }
}

/// A copy of the model after some passes, and what the last of them did.
pub(crate) fn passed(
    passes: &[&dyn Pass],
    model: &Model,
    settings: &Settings,
    calibration: Option<&Tensors>,
) -> Result<(Model, Outcome), PassError> {
    let mut model = model.clone();
    let cx = Context {
        settings,
        interpreter: &Tract,
        calibration,
    };
    let mut outcome = Outcome::default();
    for pass in passes {
        outcome = pass.run(&mut model, &cx)?;
    }
    Ok((model, outcome))
}

/// The model after passes that must succeed; the last one must change something.
pub(crate) fn after(passes: &[&dyn Pass], model: &Model, settings: &Settings) -> Model {
    match passed(passes, model, settings, None) {
        Ok((model, outcome)) => {
            assert!(
                !outcome.changes.is_empty(),
                "no change: {:?}",
                outcome.skips
            );
            model
        }
        Err(error) => panic!("{error}"),
    }
}

/// An array of double-precision numbers.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub dims: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    /// The elements of a tensor.
    pub(crate) fn of(tensor: &Tensor) -> Self {
        let dims = tensor.dims().iter().map(|&d| d as usize).collect();
        match tensor.to_f64s() {
            Ok(data) => Array { dims, data },
            Err(error) => panic!("{error}"),
        }
    }

    /// Noise.
    pub(crate) fn noise(seed: u64, dims: &[usize]) -> Self {
        let count = dims.iter().product::<usize>() as u64;
        Array {
            dims: dims.to_vec(),
            data: noise(seed, count),
        }
    }

    /// The element at a place.
    pub(crate) fn at(&self, place: &[usize]) -> f64 {
        let index = place.iter().zip(&self.dims).fold(0, |i, (p, d)| i * d + p);
        self.data[index]
    }

    /// Element `i` is a function of its place.
    pub(crate) fn from_fn(dims: &[usize], mut element: impl FnMut(&[usize]) -> f64) -> Self {
        let dims = dims.to_vec();
        let count: usize = dims.iter().product();
        let mut place = vec![0; dims.len()];
        let mut data = Vec::with_capacity(count);
        for _ in 0..count {
            data.push(element(&place));
            for axis in (0..dims.len()).rev() {
                place[axis] += 1;
                if place[axis] < dims[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Array { dims, data }
    }

    /// The same numbers in a tensor.
    pub(crate) fn tensor(&self, dtype: DataType) -> Tensor {
        let dims: Vec<u64> = self.dims.iter().map(|&d| d as u64).collect();
        crate::weights::tensor(dtype, &dims, &self.data)
    }

    /// Holds the array to another one, relative to the largest element of that.
    pub(crate) fn assert_close(&self, expected: &Array, rtol: f64) {
        assert_eq!(self.dims, expected.dims);
        let scale = expected.data.iter().fold(0.0, |s: f64, x| s.max(x.abs()));
        assert!(scale > 0.0, "zeros prove nothing");
        for (i, (a, b)) in self.data.iter().zip(&expected.data).enumerate() {
            let close = (a - b).abs() <= rtol * scale;
            assert!(close, "element {i} is {a}, expected {b}");
        }
    }
}

/// What the model computes of inputs; its first output in file order.
pub(crate) fn outputs(model: &Model, inputs: &Tensors) -> Vec<Array> {
    let found = match Tract.run(model, inputs) {
        Ok(found) => found,
        Err(error) => panic!("{error}\n{}", crate::testing::text(model)),
    };
    let names = model.graph.outputs().iter();
    let names = names.map(|output| model.graph.value_name(output.value));
    names.map(|name| Array::of(&found[name])).collect()
}

/// Inputs of noise for a batch of 2.
pub(crate) fn batch(model: &Model) -> Tensors {
    inputs_for(model, 2)
}

/// Standard operators only: the type that an input of the model is declared with.
pub(crate) fn declared(model: &Model, name: &str) -> Option<TensorType> {
    model.graph.value_type(model.graph.value_named(name)?)
}
