//! `bcosc train MODEL --data DIR -o OUT`

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use anyhow::bail;
use bcosc::{Evaluated, Measured, TrainEvent, Trained, train, write_model};
use bcosc_onnx::{ExternalData, WriteOptions};

use super::args::TrainArgs;
use super::files::{check_kept, check_model_output, check_outputs};
use super::messages::Messages;
use super::progress::Progress;
use super::{interrupt, tables};

/// Trains a model, writes it, and prints what training changed.
pub fn run(args: &TrainArgs, messages: Messages) -> anyhow::Result<()> {
    let options = args.options()?;
    let is_alone = !matches!(args.external_data, ExternalData::Always);
    check_model_output(&args.out, is_alone)?;
    check_outputs([args.out.as_path()])?;
    check_kept([&args.model], [args.out.as_path()])?;
    let stop = interrupt::note_only();
    let progress = Progress::new(messages.animated());
    let quiet = messages.quiet();
    let trained = train(&args.model, &options, &mut |event| {
        match event {
            TrainEvent::Preparing(what) => progress.say(what),
            TrainEvent::Started {
                step,
                steps,
                per_epoch,
                images: [train, val],
                engine,
                notes,
            } => {
                for note in notes {
                    messages.warning(note);
                }
                if !quiet {
                    progress.print(format!(
                        "{} training and {} validation images; {} steps, {} per epoch; {engine}",
                        tables::count(train as u64),
                        tables::count(val as u64),
                        tables::count(steps),
                        tables::count(per_epoch),
                    ));
                    if step > 0 {
                        progress.print(format!("continued after step {}", tables::count(step)));
                    }
                }
                progress.count("training", steps as usize);
                progress.set(step);
            }
            TrainEvent::Step { step, loss, rate } => {
                progress.set(step);
                progress.describe(format!("loss {loss:.4}, {rate:.0} images/s"));
            }
            TrainEvent::Evaluated(evaluated) if !quiet => progress.print(line(evaluated)),
            _ => {}
        }
        match stop.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    drop(progress);
    let trained = trained?;
    for path in &trained.skipped {
        messages.warning(&format!("skipped {}", path.display()));
    }
    if trained.interrupted {
        bail!(
            "interrupted after step {}; the same command with --resume goes on from there",
            trained.steps
        );
    }
    let writing = interrupt::writing();
    let write = WriteOptions {
        external_data: args.external_data,
    };
    let written = write_model(&trained.model, &args.out, &write)?;
    drop(writing);
    if !quiet {
        let mut out = io::stderr().lock();
        writeln!(out, "\n{}", table(&trained))?;
        let size = tables::bytes(written.bytes);
        writeln!(out, "\nwrote {} ({size})", args.out.display())?;
        writeln!(
            out,
            "checkpoints, metrics and explanations: {}",
            options.work_dir.display()
        )?;
    }
    Ok(())
}

/// One evaluation.
fn line(evaluated: &Evaluated) -> String {
    let Evaluated {
        step,
        train_loss,
        measured,
    } = evaluated;
    let mut parts = Vec::new();
    parts.extend(
        measured
            .top1
            .map(|share| format!("top-1 {}", percent(share))),
    );
    parts.extend(measured.cosine.map(|cosine| format!("cosine {cosine:.4}")));
    let residual = measured.residual.zip(measured.residual_images);
    parts.extend(residual.map(|(residual, images)| {
        let size = tables::figure(residual);
        format!("mean residual {size} ({images} images)")
    }));
    parts.extend(measured.gridpg.map(|score| format!("GridPG {score:.3}")));
    parts.extend(train_loss.map(|loss| format!("training loss {loss:.4}")));
    format!("step {}: {}", tables::count(*step), parts.join(", "))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Before and after.
fn table(trained: &Trained) -> String {
    let mut table = tables::plain();
    table.set_header(["", "before", "after"]);
    let sides = [&trained.before, &trained.after];
    let mut row = |name: &str, value: &dyn Fn(&Measured) -> Option<String>| {
        let cells = sides.map(|side| side.as_ref().and_then(value));
        if cells.iter().any(Option::is_some) {
            let [before, after] = cells.map(Option::unwrap_or_default);
            table.add_row([name.to_owned(), before, after]);
        }
    };
    row("top-1", &|measured| measured.top1.map(percent));
    row("top-5", &|measured| measured.top5.map(percent));
    row("NLL", &|measured| {
        measured.nll.map(|nll| format!("{nll:.4}"))
    });
    row("cosine", &|measured| {
        measured.cosine.map(|cosine| format!("{cosine:.4}"))
    });
    row("mean residual", &|measured| {
        measured.residual.map(tables::figure)
    });
    row("GridPG 3x3", &|measured| {
        measured.gridpg.map(|score| format!("{score:.3}"))
    });
    tables::text(table)
}
