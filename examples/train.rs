//! Train a model with the library: its training step, a loader of images, and a loop.
//!
//! ```text
//! cargo run --release --example train -- net.bcos.onnx photos/ tuned.onnx
//! ```
//!
//! `photos/` has a folder per class, or `train/` and `val/` with a folder per class each.

use std::env;
use std::error::Error;
use std::path::Path;

use bcosc::data::{Augmentation, Loader, LoaderOptions, Split, SplitOptions};
use bcosc::engine::{SessionOptions, default_engine};
use bcosc::{
    Batch, PredictOptions, Predictor, Schedule, Shape, Trainer, TrainingOptions, merge_weights,
    training_step, write_model,
};

const BATCH: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [model, data, output] = &args[..] else {
        return Err("usage: train MODEL DATA OUT.onnx".into());
    };

    let predictor = Predictor::open(model.as_str(), &PredictOptions::default())?;
    let (intake, classes) = (&predictor.intake, predictor.classes);
    let size = [intake.height.unwrap_or(224), intake.width.unwrap_or(224)];
    let split = Split::open(
        Path::new(data),
        &SplitOptions::default(),
        model,
        classes,
        None,
    )?;
    let options = LoaderOptions {
        augmentation: Augmentation::random_resized_crop(),
        ..LoaderOptions::train(BATCH)
    };
    let loader = Loader::new(split.train, intake, size, options)?;

    let step = training_step(model.as_str(), &TrainingOptions::default())?;
    let Some(first) = loader.batch(0, 0)? else {
        return Err("there are no images".into());
    };
    let batch = Batch {
        input: intake.name.clone(),
        images: first.images.dims(),
        targets: first.targets.map(|targets| targets.dims()),
        teacher: None,
    };
    let engine = default_engine();
    let mut trainer = Trainer::new(&step, 0, engine, &batch, &SessionOptions::default())?;
    let schedule = Schedule {
        rate: 1e-3,
        warmup: 0,
        steps: 2 * loader.batches() as u64,
        shape: Shape::Cosine,
    };
    for epoch in 0..2 {
        for batch in loader.epoch(epoch) {
            let batch = batch?;
            let rate = schedule.rate(trainer.steps());
            let stepped = trainer.step(batch.images, batch.targets, None, rate.into())?;
            println!("step {}: loss {:.4}", trainer.steps(), stepped.loss);
        }
    }
    let tuned = merge_weights(model.as_str(), &trainer.weights()?, false)?;
    write_model(&tuned.model, Path::new(output), &Default::default())?;
    Ok(())
}
