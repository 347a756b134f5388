//! `bcosc explain-graph MODEL -o OUT`

use std::io::{self, Write};

use bcosc::{ExplainOptions, explanation_graph, write_model};
use bcosc_onnx::{ExternalData, WriteOptions};

use super::args::ExplainGraphArgs;
use super::files::{check_model_output, check_outputs};
use super::messages::Messages;
use super::progress::Progress;
use super::{interrupt, tables};

/// Writes the explanation graph of a model.
pub fn run(args: &ExplainGraphArgs, messages: Messages) -> anyhow::Result<()> {
    check_model_output(
        &args.out,
        !matches!(args.external_data, ExternalData::Always),
    )?;
    check_outputs([args.out.as_path()])?;
    let progress = Progress::new(messages.animated());
    progress.say("building the explanation graph");
    let options = ExplainOptions {
        input_shapes: args.input_shapes.clone(),
        output: args.explained.clone(),
    };
    let model = explanation_graph(&args.model, &options);
    drop(progress);
    let model = model?;
    let writing = interrupt::writing();
    let options = WriteOptions {
        external_data: args.external_data,
    };
    let written = write_model(&model, &args.out, &options)?;
    drop(writing);
    if !messages.quiet() {
        let mut out = io::stderr().lock();
        writeln!(
            out,
            "{}: {} nodes, {}",
            args.out.display(),
            tables::count(model.graph.op_count() as u64),
            tables::bytes(written.bytes)
        )?;
    }
    Ok(())
}
