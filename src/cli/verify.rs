//! `bcosc verify A.onnx B.onnx`

use std::io::Write;

use anyhow::bail;
use bcosc::{Metadata, compare_models_on};

use super::args::VerifyArgs;
use super::files::{check_kept, check_outputs, for_tables, write_json};
use super::messages::Messages;
use super::progress::Progress;
use super::{proofs, tables};

/// Compares two models; fails if their outputs differ.
pub fn run(args: &VerifyArgs, messages: Messages) -> anyhow::Result<()> {
    check_outputs(args.report.as_deref())?;
    check_kept([&args.reference, &args.candidate], args.report.as_deref())?;
    let progress = Progress::new(messages.animated());
    progress.say("running both models");
    let verification = args.inputs.into();
    let compared = compare_models_on(
        args.on.device,
        &args.reference,
        &args.candidate,
        &args.input_shapes,
        &verification,
    );
    drop(progress);
    let compared = compared?;
    if let Some(path) = &args.report {
        write_json(path, &compared)?;
    }
    let figures = &compared.figures;
    if !messages.quiet() {
        let mut out = for_tables(args.report.as_deref());
        for (path, made) in [
            (&args.reference, &compared.reference),
            (&args.candidate, &compared.candidate),
        ] {
            if let Some(made) = made {
                writeln!(out, "{}: {}", path.display(), describe(made))?;
            }
        }
        let mut table = proofs::header("output");
        for (name, agreement) in &figures.outputs {
            proofs::agreement(&mut table, name, agreement);
        }
        tables::align_right(&mut table, 1..5);
        writeln!(out, "{}", tables::text(table))?;
        let rtol = tables::figure(figures.rtol);
        writeln!(
            out,
            "\n{} seeded inputs (seed {}), tolerance {rtol}",
            figures.samples, args.inputs.seed
        )?;
    }
    if !compared.agrees {
        bail!(
            "the outputs of {} and {} differ: {}",
            args.reference.display(),
            args.candidate.display(),
            figures.difference()
        );
    }
    Ok(())
}

/// One line about a converted model, from its metadata.
pub fn describe(made: &Metadata) -> String {
    let bias = match made.logit_bias {
        0.0 => String::new(),
        bias => format!(", logit bias {bias:.4}"),
    };
    let input = serde_json::to_value(made.input).ok();
    let input = input
        .as_ref()
        .and_then(|v| v.as_str())
        .unwrap_or_default()
        .to_owned();
    let others = match &made.b_layers {
        others if others.is_empty() => String::new(),
        others => {
            let layers = others.iter().map(|(layer, b)| format!("{b} in {layer}"));
            format!(" ({})", layers.collect::<Vec<_>>().join(", "))
        }
    };
    format!(
        "B-cos model made with bcosc {}: recipe {}, B = {}{others}, input {input}{bias}",
        made.version, made.recipe, made.b
    )
}
