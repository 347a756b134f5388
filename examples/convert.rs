//! Convert a model with the library and look at the proof.
//!
//! ```text
//! cargo run --release --example convert -- fixtures/resnet_tiny/model.folded.onnx out.onnx
//! ```

use std::env;
use std::error::Error;

use bcosc::passes::InputContract;
use bcosc::{Options, Preset, convert};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let (Some(model), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: convert MODEL OUT".into());
    };

    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    options.settings.absorb_normalization = true;

    let mut converted = convert(model.as_str(), &options)?;
    let written = converted.write(&output, &Default::default())?;

    let report = &converted.report;
    println!(
        "{} operators became {}",
        report.before.nodes, report.after.nodes
    );
    if let Some(proof) = &report.proof {
        println!(
            "at B = 1 it differs from the original by {:.1e}",
            proof.exact.overall.max_relative
        );
    }
    println!(
        "{output}: {} bytes, takes [x, 1-x] in [0, 1]",
        written.bytes
    );
    Ok(())
}
