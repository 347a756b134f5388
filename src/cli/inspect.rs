//! `bcosc inspect MODEL`

use std::io::{self, Write};

use bcosc::{Inspection, Norms, Port, inspect};
use bcosc_ir::TextOptions;

use super::args::InspectArgs;
use super::messages::Messages;
use super::progress::Progress;
use super::{tables, verify};

/// Prints the structure of a model.
pub fn run(args: &InspectArgs, messages: Messages) -> anyhow::Result<()> {
    let progress = Progress::new(messages.animated());
    progress.say("inspecting the model");
    let inspected = inspect(&args.model);
    drop(progress);
    let (found, model) = inspected?;
    let mut out = io::stdout().lock();
    if args.text {
        writeln!(out, "{}", model.text(TextOptions { full: args.full }))?;
    } else if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        print(&mut out, &found)?;
    }
    for warning in &found.warnings {
        messages.warning(warning);
    }
    Ok(())
}

fn print(out: &mut dyn Write, found: &Inspection) -> io::Result<()> {
    let mut table = tables::plain();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row(
        "model",
        found
            .model
            .as_ref()
            .map_or_else(String::new, |p| p.display().to_string()),
    );
    if let Some(made) = &found.converted {
        row("producer", verify::describe(made));
    } else if !found.producer.is_empty() {
        row("producer", found.producer.clone());
    }
    row(
        "size",
        found.size.bytes.map(tables::bytes).unwrap_or_default(),
    );
    row("parameters", tables::count(found.size.parameters));
    row("nodes", tables::count(found.size.nodes as u64));
    row("opset", opsets(found));
    ports(&mut row, "input", &found.inputs);
    ports(&mut row, "output", &found.outputs);
    for (i, line) in norms(&found.norms).into_iter().enumerate() {
        row(if i == 0 { "norms" } else { "" }, line);
    }
    for (i, line) in recognised(found).into_iter().enumerate() {
        row(if i == 0 { "recognised" } else { "" }, line);
    }
    writeln!(out, "{}\n", tables::text(table))?;
    if !found.linearity.is_empty() {
        writeln!(out, "{}\n", tables::linearity(&found.linearity))?;
    }

    let mut ops: Vec<(&String, &usize)> = found.ops.iter().collect();
    ops.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
    let mut table = tables::plain();
    table.set_header(["operator", "count"]);
    for (name, count) in ops {
        table.add_row([name.clone(), count.to_string()]);
    }
    tables::align_right(&mut table, 1..2);
    writeln!(out, "{}", tables::text(table))?;

    for preview in &found.recipes {
        match (&preview.problem, preview.nodes) {
            (Some(problem), _) => writeln!(out, "\nrecipe {}: {problem}", preview.recipe)?,
            (None, nodes) => {
                writeln!(
                    out,
                    "\nrecipe {}: converts the model to {} nodes",
                    preview.recipe,
                    nodes.unwrap_or(0)
                )?;
                let mut table = tables::plain();
                table.set_header(["pass", "changes", "skipped"]);
                for pass in &preview.passes {
                    let skips: Vec<String> = pass
                        .skips
                        .iter()
                        .map(|(why, n)| format!("{n} x {why}"))
                        .collect();
                    table.add_row([
                        pass.pass.to_owned(),
                        pass.changes.to_string(),
                        skips.join("\n"),
                    ]);
                }
                tables::align_right(&mut table, 1..2);
                writeln!(out, "{}", tables::text(table))?;
            }
        }
    }
    Ok(())
}

/// How many unrecognised operators are listed.
const LISTED: usize = 8;

fn recognised(found: &Inspection) -> Vec<String> {
    let composites = found.composites.iter();
    let mut lines: Vec<String> = composites
        .map(|c| format!("{} x {}", c.nodes.len(), c.kind.name()))
        .collect();
    for left in found.unrecognised.iter().take(LISTED) {
        let nearest = match (&left.nearest, &left.stopped_at) {
            (Some(kind), Some(node)) => {
                format!("; close to {}, but \"{node}\" does not match", kind.name())
            }
            _ => String::new(),
        };
        lines.push(format!(
            "unrecognised: {} \"{}\"{nearest}",
            left.op, left.node
        ));
    }
    match found.unrecognised.len().saturating_sub(LISTED) {
        0 => {}
        more => lines.push(format!("unrecognised: {more} more (see --json)")),
    }
    lines
}

fn opsets(found: &Inspection) -> String {
    let name = |domain: &str| match domain {
        "" => "standard ONNX".to_owned(),
        domain => domain.to_owned(),
    };
    let all: Vec<String> = found
        .opsets
        .iter()
        .map(|(domain, version)| format!("{version} ({})", name(domain)))
        .collect();
    format!("{}, file format {}", all.join(", "), found.ir_version)
}

fn ports(row: &mut dyn FnMut(&str, String), what: &str, ports: &[Port]) {
    for (i, port) in ports.iter().enumerate() {
        let kind = port.kind.as_deref().unwrap_or("not a tensor");
        row(
            if i == 0 { what } else { "" },
            format!("{}: {kind}", port.name),
        );
    }
}

fn norms(norms: &Norms) -> Vec<String> {
    let mut lines = vec![format!(
        "{} batch norms, {} other norms",
        norms.batch_norms, norms.other_norms
    )];
    if norms.convolutions_with_norm > 0 {
        lines.push(format!(
            "{} convolutions followed by a batch norm",
            norms.convolutions_with_norm
        ));
    }
    if norms.convolutions_folded > 0 {
        lines.push(format!(
            "{} convolutions with a bias but no norm: probably folded at export; the conversion restores the norms",
            norms.convolutions_folded
        ));
    }
    if norms.convolutions_bare > 0 {
        lines.push(format!(
            "{} convolutions with neither norm nor bias",
            norms.convolutions_bare
        ));
    }
    lines
}
