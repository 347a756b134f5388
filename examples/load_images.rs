//! How fast batches of training pictures are made.
//!
//! ```text
//! cargo run --release --example load_images -- net.onnx folder shift 32 128 2 3
//! ```
//!
//! The arguments are a model, a folder of pictures, an augmentation (none, shift, crop or trivial), the side of pictures if the
//! model leaves it open, the batch size, the number of workers and the number of epochs. A line per epoch has its images per
//! second, and their number.

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bcosc::data::{Augmentation, Loader, LoaderOptions, Samples};
use bcosc::{PredictOptions, Predictor, Preset};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [model, folder, augment, numbers @ ..] = &args[..] else {
        return Err("usage: load_images MODEL FOLDER AUGMENT SIDE BATCH WORKERS EPOCHS".into());
    };
    let numbers = numbers.iter().map(|n| n.parse());
    let numbers = numbers.collect::<Result<Vec<usize>, _>>()?;
    let [side, batch_size, workers, epochs] = numbers[..] else {
        return Err("four numbers are needed: SIDE BATCH WORKERS EPOCHS".into());
    };
    let augmentation = match augment.as_str() {
        "none" => Augmentation::NONE,
        "shift" => Augmentation::shift(4),
        "crop" => Augmentation::random_resized_crop(),
        "trivial" => Augmentation {
            trivial_augment: true,
            ..Augmentation::random_resized_crop()
        },
        other => return Err(format!("there is no augmentation {other}").into()),
    };

    let predict = PredictOptions {
        normalization: Some(Preset::Imagenet.normalization()),
        ..PredictOptions::default()
    };
    let intake = Predictor::open(model.as_str(), &predict)?.intake;
    let samples = Samples::unlabelled(Path::new(folder))?;
    let options = LoaderOptions {
        augmentation,
        workers,
        ..LoaderOptions::train(batch_size)
    };
    let size = [intake.height.unwrap_or(side), intake.width.unwrap_or(side)];
    let loader = Loader::new(samples, &intake, size, options)?;

    for epoch in 0..epochs {
        let start = Instant::now();
        let mut images = 0;
        for batch in loader.epoch(epoch as u64) {
            images += batch?.samples.len();
        }
        println!("{} {images}", images as f64 / start.elapsed().as_secs_f64());
    }
    Ok(())
}
