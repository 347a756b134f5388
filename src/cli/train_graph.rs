//! `bcosc train-graph MODEL -o OUT`

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::bail;
use bcosc::autodiff::training::{Exponent, Targets};
use bcosc::{Error, TrainingOptions, TrainingStep, state_path, training_step, write_model};
use bcosc_onnx::{ExternalData, WriteOptions, is_stdout};

use super::args::{Published, TrainGraphArgs};
use super::files::{check_kept, check_model_output, check_outputs};
use super::messages::Messages;
use super::progress::Progress;
use super::{interrupt, tables};

/// Writes the training-step graph of a model, and its initial state beside it.
pub fn run(args: &TrainGraphArgs, messages: Messages) -> anyhow::Result<()> {
    let out = args.out.as_ref().filter(|_| !args.dry_run);
    let state = match (out, &args.state) {
        (None, _) => None,
        _ if args.training_info => None,
        (Some(_), Some(state)) => Some(state.clone()),
        (Some(out), None) if is_stdout(out) => {
            bail!("with `-o -`, say where the state goes: --state FILE")
        }
        (Some(out), None) => Some(state_path(out)),
    };
    if let Some(out) = out {
        let is_alone = !matches!(args.external_data, ExternalData::Always);
        check_model_output(out, is_alone)?;
    }
    let results = [out, state.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path);
    check_outputs(results.clone())?;
    check_kept([&args.model], results)?;
    let targets = match args.soft_targets {
        true => Targets::Probabilities,
        false => Targets::Labels,
    };
    let mut options = TrainingOptions {
        input_shapes: args.input_shapes.clone(),
        output: args.trained.clone(),
        ..args.step.options(targets, &Published::USUAL)?
    };
    if args.b_input {
        options.step.exponent = Exponent::Input;
    }
    let progress = Progress::new(messages.animated());
    progress.say("building the training-step graph");
    let step = training_step(&args.model, &options);
    drop(progress);
    let step = step?;
    let Some(out) = out else {
        write!(io::stdout().lock(), "{}", parameters(&step))?;
        return Ok(());
    };
    let writing = interrupt::writing();
    let options = WriteOptions {
        external_data: args.external_data,
    };
    let written = match args.training_info {
        true => bcosc_onnx::write(&step.training_info(), out, &options)?,
        false => write_model(&step.model, out, &options)?,
    };
    let state = state.map(|path| Ok((step.initial().write(&path)?, path)));
    let state = state.transpose().map_err(|error: Error| error)?;
    drop(writing);
    if !messages.quiet() {
        let mut err = io::stderr().lock();
        writeln!(
            err,
            "{}: {} nodes, {}",
            out.display(),
            tables::count(step.model.graph.op_count() as u64),
            tables::bytes(written.bytes)
        )?;
        if let Some((bytes, path)) = state {
            writeln!(
                err,
                "{}: {} parameters and {} other tensors of state, {}",
                path.display(),
                step.parameters.len(),
                step.state.len() - step.parameters.len(),
                tables::bytes(bytes)
            )?;
        }
    }
    Ok(())
}

/// What is trained, as a table with its total.
fn parameters(step: &TrainingStep) -> String {
    let mut table = tables::plain();
    table.set_header(["parameter", "shape", "role"]);
    for parameter in &step.parameters {
        let dims = parameter.tensor.dims();
        let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
        table.add_row([&parameter.name, &dims.join(" x "), parameter.role.name()]);
    }
    let total: u64 = step.parameters.iter().map(|p| p.tensor.len()).sum();
    format!(
        "{}\n\n{} parameters, {} numbers\n",
        tables::text(table),
        step.parameters.len(),
        tables::count(total)
    )
}
