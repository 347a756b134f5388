//! How fast graphs run on a device: `throughput [OPTIONS] [MODEL.onnx ...]`; see `--help`.
//!
//! Each result is a line that begins with `figure: ` and goes on with JSON, so that `tests/device/run.sh` can collect them.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bcosc::autodiff::training::{Clip, StepOptions};
use bcosc::passes::InputContract;
use bcosc::{Converted, Options, Preset, TrainingOptions, Verify, convert};
use bcosc_engine::{Device, Engine, EngineError, InputShapes, Precision, SessionOptions};
use bcosc_engine_cuda::plan_in;
use bcosc_engine_cuda::runtime::Cuda;
use bcosc_ir::{Attribute, DataType, Dim, Model, ModelBuilder, Tensor};
use serde_json::json;

const HELP: &str = "\
Measures forward graphs, explanation graphs and training steps of B-cos networks on a CUDA device.

Usage: throughput [OPTIONS] [MODEL.onnx ...]

  --layers               also measure five layers of a ResNet-50
  --batch N,...          images per run [default: 64,256]
  --precision P,...      fp32, tf32, bf16 [default: all]
  --seconds S            time of each measurement [default: 1]
  --device N             number of the device [default: 0]

Models are converted with B = 2 first. Exit status: 0, 1 if a measurement fails, 3 without a device.";

/// Channels before and after, kernel, stride, and the side of the image, of layers of a ResNet-50.
const LAYERS: [(u64, u64, u64, u64, u64); 5] = [
    (6, 64, 7, 2, 224),
    (64, 256, 1, 1, 56),
    (64, 64, 3, 1, 56),
    (256, 256, 3, 2, 28),
    (512, 512, 3, 1, 7),
];

struct Settings {
    layers: bool,
    batches: Vec<u64>,
    precisions: Vec<Precision>,
    each: Duration,
    device: u32,
    models: Vec<String>,
}

fn main() -> ExitCode {
    let settings = match settings() {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}; --help says what there is");
            return ExitCode::from(2);
        }
    };
    let engine = match Cuda::new(Device::Cuda(settings.device)) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(3);
        }
    };
    let mut complete = true;
    for &precision in &settings.precisions {
        complete &= measured(&engine, precision, &settings);
    }
    match complete {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn settings() -> Result<Option<Settings>, String> {
    let mut found = Settings {
        layers: false,
        batches: vec![64, 256],
        precisions: Precision::ALL.to_vec(),
        each: Duration::from_secs(1),
        device: 0,
        models: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let invalid = |text: &str| format!("`{text}` is no value for {argument}");
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--layers" => found.layers = true,
            "--batch" => {
                let text = value()?;
                let parsed = text.split(',').map(str::parse);
                let parsed = parsed.collect::<Result<_, _>>();
                found.batches = parsed.map_err(|_| invalid(&text))?;
            }
            "--precision" => {
                let text = value()?;
                let parsed = text.split(',').map(str::parse);
                let parsed: Result<_, EngineError> = parsed.collect();
                found.precisions = parsed.map_err(|error| error.to_string())?;
            }
            "--seconds" => {
                let text = value()?;
                let seconds = text.parse().ok().filter(|s: &f64| *s > 0.0 && *s < 1e6);
                found.each = Duration::from_secs_f64(seconds.ok_or_else(|| invalid(&text))?);
            }
            "--device" => {
                let text = value()?;
                found.device = text.parse().map_err(|_| invalid(&text))?;
            }
            option if option.starts_with('-') => return Err(format!("there is no {option}")),
            _ => found.models.push(argument),
        }
    }
    Ok(Some(found))
}

/// Measures everything in one precision; says whether nothing failed.
fn measured(engine: &Cuda, precision: Precision, settings: &Settings) -> bool {
    let mut complete = true;
    let mut note = |name: &str, kind: &str, batch: u64, found: Result<Figures, String>| {
        let about = json!({
            "device": engine.device_name(), "network": name, "graph": kind, "batch": batch,
            "precision": precision.name(), "tensor_cores": precision != Precision::Fp32,
        });
        let (key, what) = match found {
            Ok(found) => (
                "result",
                json!({
                    "milliseconds": found.seconds * 1e3,
                    "images_per_second": batch as f64 / found.seconds,
                    "planned_bytes": found.bytes,
                    "prepared_in_seconds": found.preparation,
                }),
            ),
            Err(error) => {
                complete = false;
                ("error", json!(error))
            }
        };
        let mut line = about;
        line[key] = what;
        println!("figure: {line}");
    };
    for &batch in &settings.batches {
        let run = |model: Model| run(engine, &model, batch, precision, settings.each);
        if settings.layers {
            for layer in LAYERS {
                let (inputs, outputs, kernel, stride, side) = layer;
                let name = format!("{kernel}x{kernel} {inputs}-{outputs}/{stride} {side}");
                for (kind, model) in layer_graphs(layer, batch) {
                    let found = model.and_then(run);
                    note(&name, kind, batch, found);
                }
            }
        }
        for file in &settings.models {
            let name = Path::new(file).file_stem().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            let graphs = match converted(Path::new(file)) {
                Ok(converted) => graphs(&converted),
                Err(error) => {
                    note(&name, "conversion", batch, Err(error));
                    continue;
                }
            };
            for (kind, model) in graphs {
                let found = model.and_then(run);
                note(&name, kind, batch, found);
            }
        }
    }
    complete
}

/// The three products of a convolution.
fn layer_graphs(
    (inputs, outputs, kernel, stride, side): (u64, u64, u64, u64, u64),
    batch: u64,
) -> [(&'static str, Result<Model, String>); 3] {
    let pad = kernel / 2;
    let out = (side + 2 * pad - kernel) / stride + 1;
    let x = ("x", format!("{batch},{inputs},{side},{side}"));
    let w = ("w", format!("{outputs},{inputs},{kernel},{kernel}"));
    let y = ("y", format!("{batch},{outputs},{out},{out}"));
    let product = |op: &str, operands: [&(&str, String); 2], result: &(&str, String)| {
        let window = [
            Attribute::ints("kernel_shape", &[kernel as i64; 2]),
            Attribute::ints("strides", &[stride as i64; 2]),
            Attribute::ints("pads", &[pad as i64; 4]),
            Attribute::ints("dilations", &[1, 1]),
            Attribute::int("group", 1),
        ];
        let names = operands.map(|operand| operand.0);
        let built = operands
            .iter()
            .fold(ModelBuilder::new(17), |built, (name, dims)| {
                built.input(name, DataType::Float, dims)
            });
        let built = built.opset("bcosc", 1).op(op, &names, "found", window);
        let built = built.output_as("found", DataType::Float, &result.1);
        built.finish().map_err(|error| error.to_string())
    };
    [
        ("forward", product("Conv", [&x, &w], &y)),
        (
            "input gradient",
            product("bcosc::ConvInputGradient", [&y, &w], &x),
        ),
        (
            "weight gradient",
            product("bcosc::ConvWeightGradient", [&x, &y], &w),
        ),
    ]
}

fn converted(file: &Path) -> Result<Converted, String> {
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    options.verification.when = Verify::Off;
    convert(file, &options).map_err(|error| error.to_string())
}

fn graphs(converted: &Converted) -> [(&'static str, Result<Model, String>); 3] {
    let training = TrainingOptions {
        step: StepOptions {
            whole_gradients: true,
            clip: Some(Clip::ADAPTIVE),
            ..StepOptions::default()
        },
        ..TrainingOptions::default()
    };
    let text = |error: bcosc::Error| error.to_string();
    let step = converted.training_step(&training);
    [
        ("forward", Ok(converted.model.clone())),
        ("explanation", converted.explanation_graph().map_err(text)),
        ("step", step.map(|step| step.model).map_err(text)),
    ]
}

struct Figures {
    /// Of a run.
    seconds: f64,
    /// Until the first run was done.
    preparation: f64,
    /// Inputs, constants and everything between.
    bytes: u64,
}

/// Runs a graph for some time. State goes round, other inputs stay what they are.
fn run(
    engine: &Cuda,
    model: &Model,
    batch: u64,
    precision: Precision,
    each: Duration,
) -> Result<Figures, String> {
    measure(engine, model, batch, precision, each).map_err(|error| error.to_string())
}

fn measure(
    engine: &Cuda,
    model: &Model,
    batch: u64,
    precision: Precision,
    each: Duration,
) -> Result<Figures, EngineError> {
    let begun = Instant::now();
    let shapes = shapes(model, batch);
    let planned = plan_in(model, &shapes, precision)?.plan;
    let options = SessionOptions {
        precision,
        ..SessionOptions::default()
    };
    let own = planned.buffers.iter().filter(|buffer| {
        use bcosc_engine_cuda::plan::Place;
        matches!(buffer.place, Place::Input | Place::Constant)
    });
    let bytes = planned.arena + planned.prepared + own.map(|buffer| buffer.bytes()).sum::<u64>();
    let session = engine.load(model)?.session(&shapes, &options)?;
    let mut values = Vec::new();
    for (seed, port) in session.inputs().iter().enumerate() {
        let dtype = port.tensor_type.as_ref().map(|t| t.dtype);
        let dims = &shapes[&port.name];
        values.push(engine.upload(&numbers(seed, dtype, dims)?)?);
    }
    let next: Vec<Option<usize>> = session
        .inputs()
        .iter()
        .map(|port| {
            let next = format!("{}.next", port.name);
            session
                .outputs()
                .iter()
                .position(|output| output.name == next)
        })
        .collect();
    let mut once = |wait: bool| -> Result<(), EngineError> {
        let outputs = session.run(values.clone())?;
        for (value, next) in values.iter_mut().zip(&next) {
            if let Some(output) = next.and_then(|next| outputs.get(next)) {
                value.clone_from(output);
            }
        }
        if wait && let Some(first) = outputs.first() {
            first.to_tensor()?;
        }
        Ok(())
    };
    // The second run captures the steps.
    once(true)?;
    let preparation = begun.elapsed().as_secs_f64();
    once(true)?;
    once(true)?;
    let (begun, mut runs) = (Instant::now(), 0u32);
    while begun.elapsed() < each || runs < 3 {
        for _ in 0..4 {
            once(false)?;
        }
        once(true)?;
        runs += 5;
    }
    Ok(Figures {
        seconds: begun.elapsed().as_secs_f64() / f64::from(runs),
        preparation,
        bytes,
    })
}

/// Shapes of inputs, with `batch` for sizes that are open.
fn shapes(model: &Model, batch: u64) -> InputShapes {
    let graph = &model.graph;
    let inputs = graph.inputs().into_iter().filter_map(|value| {
        let dims = graph.value_type(value)?.shape?;
        let sizes = dims.iter().map(|dim| Dim::known(dim).unwrap_or(batch));
        Some((graph.value_name(value).to_owned(), sizes.collect()))
    });
    inputs.collect()
}

/// Small positive numbers; integers are 1, which is a class and the number of a step.
fn numbers(seed: usize, dtype: Option<DataType>, dims: &[u64]) -> Result<Tensor, EngineError> {
    let count = dims.iter().product::<u64>();
    match dtype {
        Some(DataType::Int64) => Ok(Tensor::i64s(dims, vec![1; count as usize])),
        Some(DataType::Float) => {
            let number = |at: u64| ((at * 7919 + seed as u64 * 104_729) % 1009) as f32 / 2e4;
            Ok(Tensor::f32s(dims, (0..count).map(number).collect()))
        }
        Some(other) => Err(EngineError::DataType(other)),
        None => Err(EngineError::MissingInput(seed.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_planned() {
        for layer in LAYERS {
            for (kind, model) in layer_graphs(layer, 2) {
                let model = model.unwrap();
                for precision in Precision::ALL {
                    let planned = plan_in(&model, &shapes(&model, 2), precision);
                    assert!(planned.is_ok(), "{layer:?} {kind} {precision}: {planned:?}");
                }
            }
        }
    }
}
