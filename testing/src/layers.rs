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
        batch_norm(self, x, y, [gamma, beta, mean])
    }

    fn scale_norm(self, x: &str, y: &str, channels: u64) -> Self {
        let zeros = Tensor::f32s(&[channels], vec![0.0; channels as usize]);
        let gamma = weight(seed(y), &[channels]);
        batch_norm(self, x, y, [gamma, zeros.clone(), zeros])
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

/// A batch norm of scales, biases and means.
fn batch_norm(
    builder: ModelBuilder,
    x: &str,
    y: &str,
    [gamma, beta, mean]: [Tensor; 3],
) -> ModelBuilder {
    let dims = gamma.dims();
    let variances = noise(seed(y), dims[0]).into_iter().map(|v| v.abs() as f32);
    let names = ["gamma", "beta", "mean", "var"].map(|part| format!("{y}.{part}"));
    builder
        .param(&names[0], gamma)
        .param(&names[1], beta)
        .param(&names[2], mean)
        .param(&names[3], Tensor::f32s(&dims, variances.collect()))
        .op(
            "BatchNormalization",
            &[x, &names[0], &names[1], &names[2], &names[3]],
            y,
            [],
        )
}

fn seed(name: &str) -> u64 {
    name.bytes().map(u64::from).sum()
}
