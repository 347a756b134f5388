//! `bcosc --list-passes`

use std::io::{self, Write};

use bcosc::passes::Effect;

use super::tables;

/// Prints every pass: name, whether it keeps the function, one line.
pub fn run() -> anyhow::Result<()> {
    let mut table = tables::plain();
    table.set_header(["pass", "effect", "what it does"]);
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
        "\nExact passes keep the function at B = 1; altering ones change it on purpose."
    )?;
    Ok(())
}
