//! Layers with random weights.

use bcosc_ir::{Attribute, Model, ModelBuilder, Tensor};

use crate::{inferred, noise, weight};

/// Additional builder methods: layers with random weights, named after their output.
pub trait Layers: Sized {
    /// A convolution with weights of these dimensions.
    fn conv(
        self,
        x: &str,
        y: &str,
        dims: &[u64],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> Self;
    /// The same with a bias.
    fn biased_conv(
        self,
        x: &str,
        y: &str,
        dims: &[u64],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> Self;
    /// `y = x @ w`, [inputs, outputs].
    fn matmul(self, x: &str, y: &str, dims: &[u64]) -> Self;
    /// A `Gemm` with transB and a bias, as PyTorch exports a linear layer.
    fn linear(self, x: &str, y: &str, inputs: u64, outputs: u64) -> Self;
    /// A batch norm with statistics, scales of either sign and a bias.
    fn norm(self, x: &str, y: &str, channels: u64) -> Self;
    /// A batch norm that only scales, with scales of either sign: mean and bias are zero.
    fn scale_norm(self, x: &str, y: &str, channels: u64) -> Self;
    /// Bounds.
    fn clip(self, x: &str, y: &str, bounds: [f32; 2]) -> Self;
    /// The finished model with the types of its values.
    fn typed(self, output: &str) -> Model;
}

impl Layers for ModelBuilder {
    fn conv(
        self,
        x: &str,
        y: &str,
        dims: &[u64],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> Self {
        let name = format!("{y}.w");
        self.param(&name, weight(seed(y), dims))
            .op("Conv", &[x, &name], y, attributes)
    }

    fn biased_conv(
        self,
        x: &str,
        y: &str,
        dims: &[u64],
        attributes: impl IntoIterator<Item = Attribute>,
    ) -> Self {
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
        let [gamma, beta, mean] = [0, 1, 2].map(|part| weight(seed(y) + part, &[channels]));
        batch_norm(
            self,
            x,
            y,
            [gamma, beta, mean, variances(seed(y), channels)],
        )
    }

    fn scale_norm(self, x: &str, y: &str, channels: u64) -> Self {
        // Some of these have one sign in their first channels, and some have both.
        let gamma = vector(noise(channels, channels));
        let zeros = vector(vec![0.0; channels as usize]);
        batch_norm(
            self,
            x,
            y,
            [gamma, zeros.clone(), zeros, variances(7, channels)],
        )
    }

    fn clip(self, x: &str, y: &str, bounds: [f32; 2]) -> Self {
        let [low, high] = bounds.map(|bound| Tensor::f32s(&[], vec![bound]));
        let names = ["low", "high"].map(|part| format!("{y}.{part}"));
        self.param(&names[0], low).param(&names[1], high).op(
            "Clip",
            &[x, &names[0], &names[1]],
            y,
            [],
        )
    }

    fn typed(self, output: &str) -> Model {
        inferred(self.output(output))
    }
}

/// A batch norm of scales, biases, means and variances.
fn batch_norm(builder: ModelBuilder, x: &str, y: &str, parameters: [Tensor; 4]) -> ModelBuilder {
    let names = ["gamma", "beta", "mean", "var"].map(|part| format!("{y}.{part}"));
    let pairs = names.iter().zip(parameters);
    let inputs = [x, &names[0], &names[1], &names[2], &names[3]];
    pairs
        .fold(builder, |b, (name, parameter)| b.param(name, parameter))
        .op("BatchNormalization", &inputs, y, [])
}

fn variances(seed: u64, channels: u64) -> Tensor {
    vector(noise(seed, channels).into_iter().map(f64::abs).collect())
}

fn vector(elements: Vec<f64>) -> Tensor {
    let elements: Vec<f32> = elements.into_iter().map(|x| x as f32).collect();
    Tensor::f32s(&[elements.len() as u64], elements)
}

fn seed(name: &str) -> u64 {
    name.bytes().map(u64::from).sum()
}
