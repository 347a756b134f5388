//! Builders for small models.

use bcosc_engine::default_interpreter;
use bcosc_ir::{DataType, Interpreter, Model, ModelBuilder, TextOptions};

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

/// Finishes a model, with the types of all values.
pub fn inferred(builder: ModelBuilder) -> Model {
    let mut model = model(builder);
    infer(&mut model);
    model
}

/// The model in ONNX's textual syntax.
pub fn text(model: &Model) -> String {
    model.to_text(TextOptions::default())
}

/// A model with an input `x` of dimensions such as `batch,3,6,8`.
pub fn input(opset: i64, dims: &str) -> ModelBuilder {
    ModelBuilder::new(opset).input("x", DataType::Float, dims)
}

/// A model with an image input `x`.
pub fn image(dims: &str) -> ModelBuilder {
    input(17, dims)
}
