//! `bcosc align MODEL --data DIR -o OUT`

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::bail;
use bcosc::{
    AlignEvent, AlignOptions, Aligned, Figures, Phased, Planned, align, plan_alignment, write_model,
};
use bcosc_onnx::{ExternalData, WriteOptions};

use super::args::AlignArgs;
use super::files::{check_kept, check_model_output, check_outputs};
use super::messages::Messages;
use super::progress::Progress;
use super::{interrupt, tables};

/// Aligns a model, writes it, and prints what that changed.
pub fn run(args: &AlignArgs, messages: Messages) -> anyhow::Result<()> {
    let options = args.options()?;
    let Some(out) = args.out.as_deref().filter(|_| !args.dry_run) else {
        let progress = Progress::new(messages.animated());
        let planned = plan_alignment(&args.model, &options, &mut |event| {
            match event {
                AlignEvent::Preparing(what) => progress.say(what),
                AlignEvent::Grows(why) if !messages.quiet() => progress.print(grows(why)),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        drop(progress);
        writeln!(io::stdout().lock(), "{}", plan(&planned))?;
        return Ok(());
    };
    aligned(&args.model, out, &options, args.external_data, messages)
}

/// Why a method was chosen.
fn grows(why: &str) -> String {
    format!("method grow: {why}, so B grows from 1, and biases stay")
}

/// Aligns a model and writes it.
pub fn aligned(
    model: &PathBuf,
    out: &Path,
    options: &AlignOptions,
    external_data: ExternalData,
    messages: Messages,
) -> anyhow::Result<()> {
    check_model_output(out, !matches!(external_data, ExternalData::Always))?;
    check_outputs([out])?;
    check_kept([model], [out])?;
    let stop = interrupt::note_only();
    let progress = Progress::new(messages.animated());
    let quiet = messages.quiet();
    let mut names: Vec<String> = Vec::new();
    let mut counting = None;
    let result = align(model, options, &mut |event| {
        match event {
            AlignEvent::Preparing(what) => progress.say(what),
            AlignEvent::Grows(why) if !quiet => progress.print(grows(why)),
            AlignEvent::Started {
                phases,
                images: [train, held_out],
                batch_size,
                engine,
                notes,
                done,
            } => {
                for note in notes {
                    messages.warning(note);
                }
                names = phases.iter().map(|phase| phase.name.clone()).collect();
                if !quiet {
                    progress.print(format!(
                        "{} training images, {} held out; {} in a step; {}; {engine}",
                        tables::count(train as u64),
                        tables::count(held_out as u64),
                        tables::count(batch_size as u64),
                        plural(phases.len(), "phase"),
                    ));
                    if done > 0 {
                        progress.print(format!("continued after step {}", tables::count(done)));
                    }
                }
            }
            AlignEvent::Step {
                phase,
                step,
                steps,
                loss,
                rate,
            } => {
                let name = names.get(phase).map_or("", String::as_str);
                if counting != Some((phase, steps)) {
                    counting = Some((phase, steps));
                    progress.count(name.to_owned(), steps as usize);
                }
                progress.set(step);
                progress.describe(format!(
                    "{name} of {}: error {loss:.4}, {rate:.0} images/s",
                    names.len()
                ));
            }
            AlignEvent::Phase(phase) if !quiet => progress.print(line(phase)),
            _ => {}
        }
        match stop.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    drop(progress);
    let result = result?;
    for path in &result.skipped {
        messages.warning(&format!("skipped {}", path.display()));
    }
    if result.interrupted {
        bail!("interrupted; the same command with --resume goes on from the last checkpoint");
    }
    let writing = interrupt::writing();
    let write = WriteOptions { external_data };
    let written = write_model(&result.model, out, &write)?;
    drop(writing);
    if !quiet {
        let mut stderr = io::stderr().lock();
        writeln!(stderr, "\n{}", table(&result))?;
        let size = tables::bytes(written.bytes);
        writeln!(stderr, "\nwrote {} ({size})", out.display())?;
        writeln!(
            stderr,
            "checkpoints, metrics and explanations: {}",
            options.work_dir.display()
        )?;
    }
    Ok(())
}

/// What would be trained.
fn plan(planned: &[Planned]) -> String {
    let mut table = tables::plain();
    table.set_header(["phase", "layers", "tensors", "steps", "compared at"]);
    for phase in planned {
        let tensors = phase.parameters;
        table.add_row([
            phase.name.clone(),
            phase.layers.to_string(),
            tensors.map_or_else(|| "all".to_owned(), |count| count.to_string()),
            phase.steps.to_string(),
            phase.places.join(", "),
        ]);
    }
    tables::text(table)
}

/// One phase.
fn line(phase: &Phased) -> String {
    format!(
        "{}: error {:.4} -> {:.4}, {} in {:.1} s",
        phase.name,
        phase.before,
        phase.after,
        plural(phase.steps as usize, "step"),
        phase.seconds
    )
}

fn plural(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", tables::count(count as u64)),
    }
}

/// The original, the converted and the aligned model.
fn table(aligned: &Aligned) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut table = tables::plain();
    table.set_header(["", "original", "converted", "aligned"]);
    let sides = [&aligned.before, &aligned.after];
    let own = sides.map(|side| side.as_ref());
    let figures = own.map(|side| side.and_then(|side| side.figures.as_ref()));
    let all = [aligned.original.as_ref(), figures[0], figures[1]];
    let agreements = own.map(|side| side.map(|side| percent(side.top1)).unwrap_or_default());
    let [before, after] = agreements;
    table.add_row(["agreement".to_owned(), String::new(), before, after]);
    let top5 = own.map(|side| side.and_then(|side| side.top5));
    if let [Some(before), Some(after)] = top5 {
        let cells = [before, after].map(percent);
        let [before, after] = cells;
        let name = "agreement, top-5".to_owned();
        table.add_row([name, String::new(), before, after]);
    }
    let mut row = |name: &str, value: &dyn Fn(&Figures) -> Option<String>| {
        let cells = all.map(|side| side.and_then(value));
        if cells.iter().any(Option::is_some) {
            let [original, before, after] = cells.map(Option::unwrap_or_default);
            table.add_row([name.to_owned(), original, before, after]);
        }
    };
    row("top-1", &|figures| Some(percent(figures.top1)));
    row("top-5", &|figures| figures.top5.map(percent));
    row("GridPG 3x3", &|figures| {
        let score = figures.pointing.first()?.score?;
        Some(format!("{score:.3}"))
    });
    tables::text(table)
}
