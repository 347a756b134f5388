//! `bcosc extract MODEL -o WEIGHTS` and `bcosc merge MODEL WEIGHTS -o OUT`

use std::io::{self, Write};

use bcosc::{Weights, extract_weights, merge_weights, write_model};
use bcosc_onnx::{ExternalData, WriteOptions};

use super::args::{ExtractArgs, MergeArgs};
use super::files::{check_kept, check_model_output, check_outputs};
use super::messages::Messages;
use super::{interrupt, tables};

/// Writes the weights of a model.
pub fn extract(args: &ExtractArgs, messages: Messages) -> anyhow::Result<()> {
    check_outputs([args.out.as_path()])?;
    check_kept([&args.model], [args.out.as_path()])?;
    let weights = extract_weights(&args.model)?;
    let writing = interrupt::writing();
    let bytes = weights.write(&args.out)?;
    drop(writing);
    if !messages.quiet() {
        let (path, count, size) = (args.out.display(), weights.len(), tables::bytes(bytes));
        writeln!(io::stderr().lock(), "{path}: {count} tensors, {size}")?;
    }
    Ok(())
}

/// Writes a model with other weights.
pub fn merge(args: &MergeArgs, messages: Messages) -> anyhow::Result<()> {
    check_model_output(
        &args.out,
        !matches!(args.external_data, ExternalData::Always),
    )?;
    check_outputs([args.out.as_path()])?;
    check_kept([&args.weights], [args.out.as_path()])?;
    let weights = Weights::read(&args.weights)?;
    let merged = merge_weights(&args.model, &weights, args.ema)?;
    let writing = interrupt::writing();
    let options = WriteOptions {
        external_data: args.external_data,
    };
    let written = write_model(&merged.model, &args.out, &options)?;
    drop(writing);
    if !messages.quiet() {
        let (path, count) = (args.out.display(), merged.replaced);
        let size = tables::bytes(written.bytes);
        writeln!(
            io::stderr().lock(),
            "{path}: {count} weights replaced, {size}"
        )?;
    }
    Ok(())
}
