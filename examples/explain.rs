//! Explain a picture with the library.
//!
//! ```text
//! cargo run --release --example explain -- bcos.onnx cat.jpg cat.explanation.png
//! ```

use std::env;
use std::error::Error;
use std::path::Path;

use bcosc::{Explainer, PredictOptions, encoded_png};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [model, picture, output] = &args[..] else {
        return Err("usage: explain MODEL PICTURE OUT.png".into());
    };

    let explainer = Explainer::open(model.as_str(), &PredictOptions::default())?;
    let image = explainer.predictor.intake.read(Path::new(picture))?;
    let [_, _, height, width] = image.dims[..] else {
        return Err("pictures require four dimensions".into());
    };
    let sized = explainer.at(height as usize, width as usize)?;
    let explanation = sized.explain(&image, None)?;

    println!(
        "class {}: logit {:.3}, of which pixels contribute {:.3}",
        explanation.class, explanation.logit, explanation.contribution
    );
    if let Some(colours) = explanation.picture() {
        std::fs::write(output, encoded_png(&colours)?)?;
    }
    Ok(())
}
