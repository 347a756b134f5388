//! The command line: parse arguments, run the command, report errors.

mod align;
mod args;
mod convert;
mod eval;
mod explain;
mod explain_graph;
mod files;
mod inspect;
mod interrupt;
mod items;
mod messages;
mod passes;
mod progress;
mod proofs;
mod tables;
mod train;
mod train_graph;
mod verify;
mod weights;

use std::io;
use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use messages::Messages;

/// Runs the command line of this process. The exit code is 0 on success, 1 on an error, 2 on a usage
/// error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let messages = Messages::new(cli.output);
    interrupt::install();
    let done = match &cli.command {
        Some(Command::Verify(args)) => verify::run(args, messages),
        Some(Command::Explain(args)) => explain::run(args, messages),
        Some(Command::ExplainGraph(args)) => explain_graph::run(args, messages),
        Some(Command::Eval(args)) => eval::run(args, messages),
        Some(Command::Inspect(args)) => inspect::run(args, messages),
        Some(Command::Align(args)) => align::run(args, messages),
        Some(Command::Train(args)) => train::run(args, messages),
        Some(Command::TrainGraph(args)) => train_graph::run(args, messages),
        Some(Command::Extract(args)) => weights::extract(args, messages),
        Some(Command::Merge(args)) => weights::merge(args, messages),
        None if cli.convert.list_passes => passes::run(),
        None => convert::run(&cli.convert, messages),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A closed pipe (`bcosc ... | head`) is not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            messages.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
