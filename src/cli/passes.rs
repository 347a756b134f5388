//! `bcosc --list-passes`

use std::io::{self, Write};

use bcosc::passes::Effect;

use super::tables;

/// Prints the name, effect and summary of every pass.
pub fn run() -> anyhow::Result<()> {
    let mut table = tables::plain();
    table.set_header(["pass", "effect", "summary"]);
    for pass in bcosc::all_passes() {
        let effect = match pass.effect {
            Effect::Exact => "exact",
            Effect::Altering => "altering",
        };
        table.add_row([pass.name, effect, pass.summary]);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", tables::text(table))?;
    writeln!(
        out,
        "\nExact passes keep the function at B = 1; altering passes change it on purpose."
    )?;
    Ok(())
}
