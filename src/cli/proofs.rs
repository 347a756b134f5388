//! The results of a proof as text.

use bcosc::Proof;
use bcosc_engine::{Agreement, ProofFigures};
use comfy_table::Table;

use super::tables;

/// All results of a proof.
pub fn table(proof: &Proof) -> String {
    let mut table = header("proof");
    row(&mut table, "exact passes at B = 1", &proof.exact);
    if let Some(altered) = &proof.altered {
        row(&mut table, "all passes at B = 1", altered);
    }
    if let Some(deployed) = &proof.deployed {
        row(&mut table, "deploy form, model's B", deployed);
    }
    tables::align_right(&mut table, 1..5);
    let sensitivity = &proof.sensitivity;
    let depend = match sensitivity.depends_on_input() {
        true => "depend",
        false => "do not depend",
    };
    let samples = proof.exact.samples;
    let table = tables::text(table);
    format!(
        "{table}\n\nOutputs of the converted model {depend} on the input\n(relative range {} over {} images).\n\
         Compared on {samples} seeded inputs (seed {}), tolerance {}.",
        tables::figure(sensitivity.relative_range),
        sensitivity.images,
        proof.seed,
        tables::figure(proof.exact.rtol),
    )
}

/// The header of a table of comparisons.
pub fn header(title: &str) -> Table {
    let mut table = tables::plain();
    table.set_header([title, "max |d|", "relative", "1 - cosine", "top-1"]);
    table
}

/// Adds a comparison.
pub fn row(table: &mut Table, name: &str, figures: &ProofFigures) {
    agreement(table, name, &figures.overall);
}

/// Adds the metrics of a comparison.
pub fn agreement(table: &mut Table, name: &str, figures: &Agreement) {
    table.add_row([
        name.to_owned(),
        tables::figure(figures.max_abs),
        tables::figure(figures.max_relative),
        tables::figure((1.0 - figures.cosine).max(0.0)),
        format!("{:.0} %", 100.0 * figures.top1),
    ]);
}
