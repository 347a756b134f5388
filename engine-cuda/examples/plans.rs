//! Plans the graphs of networks, and prints what they have: `plans [--batch N] [--precision P] MODEL.onnx ...`.
//!
//! Each network is converted; its forward graph, explanation graph and training step are planned. Encoders learn from themselves
//! by the loss of SigLIP. Nothing runs, so no GPU is needed. Exits with 1 if a plan is not complete.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use bcosc::autodiff::training::{Clip, Loss, StepOptions};
use bcosc::passes::InputContract;
use bcosc::{Options, Preset, Recipe, TrainingOptions, Verify, convert};
use bcosc_engine::{InputShapes, Precision};
use bcosc_engine_cuda::plan::{Plan, Step};
use bcosc_engine_cuda::plan_in;
use bcosc_ir::{Dim, Model};

fn main() -> ExitCode {
    let (mut batch, mut precision) = (8, Precision::Fp32);
    let mut complete = true;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--batch" {
            batch = arguments
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(batch);
            continue;
        }
        if argument == "--precision" {
            let given = arguments.next().and_then(|name| name.parse().ok());
            precision = given.unwrap_or(precision);
            continue;
        }
        complete &= network(Path::new(&argument), batch, precision);
    }
    if let Some(peak) = peak_memory() {
        println!("peak memory {peak} MiB");
    }
    if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn network(file: &Path, batch: u64, precision: Precision) -> bool {
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    options.verification.when = Verify::Off;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let converted = match convert(file, &options) {
        Ok(converted) => converted,
        Err(error) => {
            println!("{name}: {error}");
            return false;
        }
    };
    let explanation = converted
        .explanation_graph()
        .map_err(|error| error.to_string());
    let embeds = converted.report.recipe == Recipe::Clip.name();
    let mut step = StepOptions {
        whole_gradients: true,
        clip: Some(Clip::ADAPTIVE),
        ..StepOptions::default()
    };
    if embeds {
        step.loss = Loss::SigmoidPairs {
            scale: 10.0,
            bias: -10.0,
        };
    }
    let training = TrainingOptions {
        step,
        teacher: embeds.then(|| file.into()),
        ..TrainingOptions::default()
    };
    let step = converted
        .training_step(&training)
        .map_err(|error| error.to_string());
    let graphs = [
        ("forward", Ok(converted.model)),
        ("explanation", explanation),
        ("step", step.map(|step| step.model)),
    ];
    let mut complete = true;
    for (kind, model) in graphs {
        let start = Instant::now();
        let planned = model.and_then(|model| {
            let planned = plan_in(&model, &shapes(&model, batch), precision);
            planned.map_err(|error| error.to_string())
        });
        match planned {
            Ok(planned) => {
                let seconds = start.elapsed().as_secs_f64();
                println!("{name} {kind}: {} ({seconds:.1} s)", figures(&planned.plan));
            }
            Err(error) => {
                println!("{name} {kind}: {error}");
                complete = false;
            }
        }
    }
    complete
}

/// The most memory that this process had, in MiB; known on Linux.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib >> 10)
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

fn figures(plan: &Plan) -> String {
    let count = |f: fn(&Step) -> bool| plan.steps.iter().filter(|step| f(step)).count();
    let operations = plan.steps.len();
    format!(
        "{operations} operations: {} launches of {} kernels, {} convolutions, {} products, {} copies, {} prepared, {} of {} in place, arena {} MiB",
        count(|s| matches!(s, Step::Launch { .. })),
        plan.kernels.len(),
        count(|s| matches!(s, Step::Convolution { .. })),
        count(|s| matches!(s, Step::Product { .. })),
        count(|s| matches!(s, Step::Copy { .. })),
        plan.prepare.len(),
        plan.state.len() - count(|s| matches!(s, Step::Copy { .. })),
        plan.state.len(),
        plan.arena >> 20,
    )
}
