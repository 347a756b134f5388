//! Putting small models together.

use bcosc_engine::default_interpreter;
use bcosc_ir::{Attribute, DataType, Interpreter, Model, ModelBuilder, Tensor, TextOptions};

use crate::{noise, weight};

/// Finishes a model that is put together by hand.
pub fn model(builder: ModelBuilder) -> Model {
    match builder.finish() {
        Ok(model) => model,
        Err(error) => panic!("not a graph: {error}"),
    }
}

/// Records the types of all values.
pub fn infer(model: &mut Model) {
    if let Err(error) = default_interpreter().infer(model, 64 * 1024) {
        panic!("types: {error}");
    }
}

/// The model in ONNX's textual syntax.
pub fn text(model: &Model) -> String {
    model.to_text(TextOptions::default())
}

/// A model with an image input `x` of dimensions such as `batch,3,6,8`.
pub fn image(dims: &str) -> ModelBuilder {
    ModelBuilder::new(17).input("x", DataType::Float, dims)
}

/// Steps that the builder lacks: layers with weights of noise that are named after their output.
pub trait Layers: Sized {
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
