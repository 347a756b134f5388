//! Run times of models on the default engine, in milliseconds of processor time.
//!
//! ```text
//! cargo run --release -p bcosc-engine --example latency -- 10 a.onnx b.onnx
//! ```
//!
//! The models take turns, so that what else the machine does affects all of them; the median of the rounds is
//! printed for each. All sizes of their inputs must be known. Processor time is that of Linux; elsewhere it
//! is wall time.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bcosc_engine::{SessionOptions, Value, default_engine};
use bcosc_ir::{Model, onnx};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let rounds: usize = args
        .next()
        .ok_or("usage: latency ROUNDS MODEL...")?
        .parse()?;
    let mut models = Vec::new();
    for path in args {
        let model = Model::from_proto(onnx::read(Path::new(&path))?.model)?;
        let inputs = bcosc_testing::inputs_for(&model, 1);
        let shapes = inputs.iter().map(|(name, x)| (name.clone(), x.dims()));
        let session = default_engine()
            .load(&model)?
            .into_session(&shapes.collect(), &SessionOptions::default())?;
        let order = session.inputs().iter();
        let inputs: Vec<Value> = order
            .filter_map(|port| Some(default_engine().upload(inputs.get(&port.name)?)))
            .collect::<Result<_, _>>()?;
        models.push((path, session, inputs, Vec::new()));
    }
    for round in 0..=rounds {
        for (_, session, inputs, times) in &mut models {
            let start = Start::now();
            session.run(inputs.clone())?;
            let taken = start.milliseconds();
            // The first run is a warm-up.
            if round > 0 {
                times.push(taken);
            }
        }
    }
    for (path, _, _, mut times) in models {
        times.sort_by(f64::total_cmp);
        println!(
            "{path} {:.3}",
            times.get(rounds / 2).copied().unwrap_or(f64::NAN)
        );
    }
    Ok(())
}

/// A moment of this thread.
struct Start {
    processor: Option<f64>,
    wall: Instant,
}

impl Start {
    fn now() -> Self {
        Start {
            processor: processor_milliseconds(),
            wall: Instant::now(),
        }
    }

    fn milliseconds(&self) -> f64 {
        match (self.processor, processor_milliseconds()) {
            (Some(start), Some(end)) => end - start,
            _ => self.wall.elapsed().as_secs_f64() * 1e3,
        }
    }
}

fn processor_milliseconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}
