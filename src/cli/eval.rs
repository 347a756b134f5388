//! `bcosc eval MODEL --data DIR`

use std::io::Write;

use bcosc::{Curve, Evaluation, Figures, Pointing, Probability, Source, evaluate};

use super::args::EvalArgs;
use super::files::{self, check_kept, check_outputs, for_tables, write_json};
use super::messages::Messages;
use super::progress::Progress;
use super::tables;

/// Evaluates models and prints their metrics side by side.
pub fn run(args: &EvalArgs, messages: Messages) -> anyhow::Result<()> {
    check_outputs(args.results())?;
    check_kept(
        [&args.model].into_iter().chain(&args.compare),
        args.results(),
    )?;
    let options = args.options();
    let models: Vec<Source> = [&args.model]
        .into_iter()
        .chain(&args.compare)
        .map(Source::from)
        .collect();
    let progress = Progress::new(messages.animated());
    progress.say("reading the models");
    let evaluated = evaluate(&models, &args.data, &options, &|now| {
        let what = now.task.describe();
        match (now.done, models.len()) {
            (0, 1) => progress.count(what, now.of),
            (0, _) => progress.count(format!("{}: {what}", now.model), now.of),
            _ => progress.advance(),
        }
    });
    drop(progress);
    let evaluated = evaluated?;
    // Build both before writing either.
    let plot = args.plot.as_ref().map(|path| Ok((path, evaluated.plot()?)));
    let plot: Option<(_, String)> = plot.transpose().map_err(|e: bcosc::Error| e)?;
    if let Some(path) = &args.report {
        write_json(path, &evaluated)?;
    }
    if let Some((path, svg)) = plot {
        files::write(path, svg.as_bytes())?;
    }
    for warning in &evaluated.warnings {
        messages.warning(warning);
    }
    if !messages.quiet() {
        let mut out = for_tables(args.results());
        let (images, classes) = (evaluated.images as u64, evaluated.folders.len() as u64);
        writeln!(
            out,
            "{}: {} images of {} classes\n",
            evaluated.data.display(),
            tables::count(images),
            tables::count(classes)
        )?;
        writeln!(out, "{}\n\n{}", table(&evaluated), legend(&evaluated))?;
    }
    Ok(())
}

/// Explains the metrics in the table.
fn legend(evaluation: &Evaluation) -> String {
    let any = |has: fn(&Figures) -> bool| evaluation.models.iter().any(has);
    let parts = [
        (
            true,
            "ECE: expected calibration error, 15 bins. NLL: negative log-likelihood.",
        ),
        (
            any(|m| !m.pointing.is_empty()),
            "GridPG: share of positive contributions inside the picture of the explained class.",
        ),
        (
            any(|m| m.perturbation.is_some()),
            "Deletion, insertion: area under the curve; lower deletion and higher insertion are better.",
        ),
        (
            any(|m| m.completeness.is_some()),
            "Residual: share of the logit that contributions do not account for, mean over images.",
        ),
    ];
    let shown = parts.iter().filter(|(has, _)| *has);
    shown.map(|(_, text)| *text).collect::<Vec<_>>().join("\n")
}

/// A row: its name, and its value for a model.
type Row = (String, Box<dyn Fn(&Figures) -> Option<String>>);

fn row(name: impl Into<String>, value: impl Fn(&Figures) -> Option<String> + 'static) -> Row {
    (name.into(), Box::new(value))
}

fn table(evaluation: &Evaluation) -> String {
    let mut rows = vec![
        row("top-1", |m| Some(percent(m.top1))),
        row("top-5", |m| m.top5.map(percent)),
        row("probability", |m| {
            Some(
                match m.probability {
                    Probability::Softmax => "softmax",
                    Probability::Sigmoid => "sigmoid",
                }
                .to_owned(),
            )
        }),
        row("mean confidence", |m| {
            Some(percent(m.reliability.mean_confidence))
        }),
        row("ECE", |m| Some(number(m.reliability.ece))),
        row("NLL", |m| Some(number(m.reliability.nll))),
    ];
    let mut sizes: Vec<usize> = Vec::new();
    for played in evaluation.models.iter().flat_map(|m| &m.pointing) {
        if !sizes.contains(&played.cells) {
            sizes.push(played.cells);
        }
    }
    for cells in sizes {
        let find = move |m: &Figures| m.pointing.iter().find(|p| p.cells == cells).cloned();
        rows.push(row(format!("GridPG {cells}x{cells}"), move |m| {
            find(m).and_then(|p| score(&p))
        }));
        rows.push(row("  chance level", move |m| {
            find(m).map(|p| number(p.chance))
        }));
        rows.push(row("  grids", move |m| {
            find(m).map(|p| tables::count(p.grids as u64))
        }));
    }
    let area = |curve: fn(&bcosc::Perturbation) -> &Curve| {
        move |m: &Figures| m.perturbation.as_ref().map(|p| number(curve(p).area))
    };
    rows.extend([
        row("deletion", area(|p| &p.deletion)),
        row("  random order", area(|p| &p.deletion_random)),
        row("insertion", area(|p| &p.insertion)),
        row("  random order", area(|p| &p.insertion_random)),
        row("residual", |m| m.completeness.map(|c| share(c.mean))),
        row("  maximum", |m| m.completeness.map(|c| share(c.max))),
    ]);
    let mut table = tables::plain();
    let names = evaluation.models.iter().map(|m| m.name.clone());
    table.set_header([String::new()].into_iter().chain(names));
    for (name, value) in rows {
        let values: Vec<Option<String>> = evaluation.models.iter().map(&value).collect();
        if values.iter().any(Option::is_some) {
            let cells = values
                .into_iter()
                .map(|v| v.unwrap_or_else(|| "-".to_owned()));
            table.add_row([name].into_iter().chain(cells));
        }
    }
    tables::align_right(&mut table, 1..evaluation.models.len() + 1);
    tables::text(table)
}

fn score(played: &Pointing) -> Option<String> {
    let score = number(played.score?);
    Some(match played.standard_error {
        Some(error) => format!("{score} ± {error:.3}"),
        None => score,
    })
}

/// A share in a notation that suits both rounding errors and constant terms.
fn share(value: f64) -> String {
    match value < 1e-3 {
        true => tables::figure(value),
        false => number(value),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn number(value: f64) -> String {
    format!("{value:.3}")
}
