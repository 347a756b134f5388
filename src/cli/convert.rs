//! `bcosc MODEL -o OUT`

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::bail;
use bcosc::{
    Converted, Event, Options, Report, TrainingOptions, convert_with, explanation_path, state_path,
    step_path, write_model,
};
#[cfg(feature = "cuda")]
use bcosc::{TrainingStep, cuda_path, engine::Precision, write_cuda_folder};
use bcosc_ir::{Model, TextOptions};
use bcosc_onnx::{ExternalData, WriteOptions};

use super::args::{ConvertArgs, EmitArg, after_conversion};
use super::files::{
    self, check_kept, check_model_output, check_outputs, for_tables, make_folder, write_json,
};
use super::messages::Messages;
use super::progress::Progress;
use super::{align, interrupt, tables};

/// Converts a model, writes it, and prints a summary.
pub fn run(args: &ConvertArgs, messages: Messages) -> anyhow::Result<()> {
    let Some(model) = &args.model else {
        bail!("no model was given")
    };
    let options = args.options();
    if let (Some(data), Some(out)) = (&args.align, &args.output) {
        let options = after_conversion(data, out, options)?;
        return align::aligned(model, out, &options, args.external_data, messages);
    }
    let [explains, trains] = [EmitArg::Explain, EmitArg::Train].map(|e| args.emit.contains(&e));
    let output = args.output.as_deref().filter(|_| !args.dry_run);
    if let Some(output) = output {
        let is_alone = args.emit.is_empty() && !matches!(args.external_data, ExternalData::Always);
        check_model_output(output, is_alone)?;
    }
    let beside = output.filter(|_| explains).map(explanation_path);
    let step_file = output.filter(|_| trains).map(step_path);
    let state_file = step_file.as_deref().map(state_path);
    let results = [
        output,
        beside.as_deref(),
        step_file.as_deref(),
        state_file.as_deref(),
        args.report.as_deref(),
    ];
    check_outputs(results.into_iter().flatten())?;
    // The converted model may overwrite the original.
    check_kept([model], results[1..].iter().flatten().copied())?;
    let mut converted = convert(model, &options, args.dump_ir.as_deref(), messages)?;
    // Build all graphs before writing any.
    let explanation = explains.then(|| converted.explanation_graph());
    let explanation = explanation.transpose()?;
    let step = trains.then(|| converted.training_step(&TrainingOptions::default()));
    let step = step.transpose()?;
    #[cfg(feature = "cuda")]
    let planned = cuda_step(args, &converted)?;
    if let Some(output) = output {
        let _writing = interrupt::writing();
        let options = WriteOptions {
            external_data: args.external_data,
        };
        if let (Some(graph), Some(path)) = (explanation, &beside) {
            converted.write_explanation(&graph, path, &options)?;
        }
        if let (Some(step), Some(path), Some(state)) = (step, &step_file, &state_file) {
            write_model(&step.model, path, &options)?;
            step.initial().write(state)?;
        }
        #[cfg(feature = "cuda")]
        if let Some(step) = planned {
            let precision = args.emit_precision;
            write_cuda_folder(&step, args.emit_batch, precision, &cuda_path(output))?;
        }
        converted.write(output, &options)?;
    }
    let report = &converted.report;
    if let Some(path) = &args.report {
        write_json(path, report)?;
    }
    for warning in &report.warnings {
        messages.warning(warning);
    }
    if !messages.quiet() {
        print(
            &mut *for_tables(results.into_iter().flatten()),
            report,
            messages.verbose(),
            step_file.as_deref(),
        )?;
        #[cfg(feature = "cuda")]
        if let Some(output) = output.filter(|_| args.emit.contains(&EmitArg::Cuda)) {
            let mut out = for_tables(results.into_iter().flatten());
            writeln!(out, "wrote folder {}", cuda_path(output).display())?;
        }
    }
    Ok(())
}

/// The training step of `--emit cuda`.
#[cfg(feature = "cuda")]
fn cuda_step(args: &ConvertArgs, converted: &Converted) -> anyhow::Result<Option<TrainingStep>> {
    if !args.emit.contains(&EmitArg::Cuda) {
        if args.emit_precision != Precision::default() {
            bail!("--emit-precision requires --emit cuda");
        }
        return Ok(None);
    }
    let mut options = TrainingOptions::default();
    options.step.whole_gradients = true;
    Ok(Some(converted.training_step(&options)?))
}

fn convert(
    model: &PathBuf,
    options: &Options,
    dump: Option<&Path>,
    messages: Messages,
) -> anyhow::Result<Converted> {
    if let Some(folder) = dump {
        make_folder(folder)?;
    }
    let progress = Progress::new(messages.animated());
    let failed = Mutex::new(None);
    let converted = convert_with(model, options, &|event| {
        progress.tell(&event);
        let dumped = match (dump, event) {
            (Some(folder), Event::Imported { model }) => {
                write_text(&folder.join("00-original.txt"), model)
            }
            (
                Some(folder),
                Event::Pass {
                    step, model, index, ..
                },
            ) => write_text(
                &folder.join(format!("{:02}-{}.txt", index + 1, step.pass)),
                model,
            ),
            _ => Ok(()),
        };
        if let (Err(error), Ok(mut failed)) = (dumped, failed.lock()) {
            failed.get_or_insert(error);
        }
    })?;
    match failed.into_inner() {
        Ok(Some(error)) => Err(error),
        _ => Ok(converted),
    }
}

fn write_text(path: &Path, model: &Model) -> anyhow::Result<()> {
    files::write(
        path,
        format!("{}\n", model.text(TextOptions::default())).as_bytes(),
    )
}

fn print(out: &mut dyn Write, report: &Report, all: bool, step: Option<&Path>) -> io::Result<()> {
    let from = report
        .model
        .as_ref()
        .map_or_else(String::new, |p| p.display().to_string());
    let opset = report
        .opset
        .map_or_else(String::new, |opset| format!(", opset {opset}"));
    match report.recipe {
        "none" => writeln!(out, "{from}: recipe none{opset}\n")?,
        recipe => {
            let settings = &report.options.settings;
            let others = settings.b_last.is_some() || !settings.b_layers.is_empty();
            let others = if others { " but for some layers" } else { "" };
            writeln!(
                out,
                "{from}: recipe {recipe}, B = {}{others}{opset}\n",
                settings.b
            )?
        }
    }
    writeln!(out, "{}", tables::sizes(report.before, report.after))?;
    if !report.passes.is_empty() {
        writeln!(out, "\n{}", tables::steps(report, all))?;
        if !report.linearity.is_empty() {
            writeln!(out, "\n{}", tables::linearity(&report.linearity))?;
        }
    }
    if let Some(proof) = &report.proof {
        writeln!(out, "\n{}", super::proofs::table(proof))?;
    }
    match &report.output {
        Some(path) => writeln!(out, "\nwrote {}", path.display())?,
        None => writeln!(out, "\nno model was written (--dry-run)")?,
    }
    if let Some(path) = &report.explanation {
        writeln!(out, "wrote explanation graph {}", path.display())?;
    }
    match step {
        Some(path) => writeln!(
            out,
            "wrote training-step graph {} and {}",
            path.display(),
            state_path(path).display()
        ),
        None => Ok(()),
    }
}
