//! Results as text tables.

use std::io::{self, IsTerminal};

use bcosc::passes::analysis::linearity::Verdict;
use bcosc::passes::pipeline::Step;
use bcosc::{Report, Size};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Width if stdout is not a terminal.
const WIDTH: u16 = 80;

/// A table without lines, as wide as the terminal.
pub fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !io::stdout().is_terminal() {
        table.force_no_tty().set_width(WIDTH);
    }
    table
}

/// The table as text: columns separated by two spaces, no trailing whitespace.
pub fn text(mut table: Table) -> String {
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.trim_fmt()
}

/// Sizes before and after.
pub fn sizes(before: Size, after: Size) -> String {
    let mut table = plain();
    table.set_header(["", "before", "after"]);
    table.add_row([
        "nodes".to_owned(),
        count(before.nodes as u64),
        count(after.nodes as u64),
    ]);
    table.add_row([
        "parameters".to_owned(),
        count(before.parameters),
        count(after.parameters),
    ]);
    if let (Some(before), Some(after)) = (before.bytes, after.bytes) {
        table.add_row(["size".to_owned(), bytes(before), bytes(after)]);
    }
    align_right(&mut table, 1..3);
    text(table)
}

/// The changes and skips of each pass: equal ones are counted, or `all` are listed by node.
pub fn steps(report: &Report, all: bool) -> String {
    let mut table = plain();
    table.set_header(["pass", "nodes", "changes"]);
    let mut idle = Vec::new();
    for step in &report.passes {
        let changes = step
            .outcome
            .changes
            .iter()
            .map(|c| (c.what.clone(), c.node.as_str()));
        let skips = step
            .outcome
            .skips
            .iter()
            .map(|s| (s.reason.to_string(), s.node.as_str()));
        let lines: Vec<String> = match all {
            true => {
                let changes = changes.map(|(what, node)| format!("{node}: {what}"));
                changes
                    .chain(skips.map(|(why, node)| format!("skipped {node}: {why}")))
                    .collect()
            }
            false => {
                let left = grouped(skips, true)
                    .into_iter()
                    .map(|line| format!("skipped {line}"));
                grouped(changes, false).into_iter().chain(left).collect()
            }
        };
        match lines.is_empty() && step.nodes_before == step.nodes_after {
            true => idle.push(step.pass),
            false => {
                table.add_row([step.pass.to_owned(), difference(step), lines.join("\n")]);
            }
        }
    }
    align_right(&mut table, 1..2);
    let mut text = text(table);
    if all && !idle.is_empty() {
        let mut list = plain();
        list.add_row(["no changes", &idle.join(", ")]);
        text.push_str("\n\n");
        text.push_str(&self::text(list));
    }
    text
}

/// For each output, whether it is dynamic linear, with its constant terms or the nodes that break it.
pub fn linearity(verdicts: &[Verdict]) -> String {
    let mut table = plain();
    for found in verdicts {
        table.add_row([verdict(found)]);
    }
    text(table)
}

fn verdict(verdict: &Verdict) -> String {
    let output = &verdict.output;
    if !verdict.dynamic_linear {
        let nodes: Vec<&str> = verdict.broken_by.iter().map(String::as_str).collect();
        return format!(
            "`{output}` is not dynamic linear in the input because of {}",
            named(&nodes)
        );
    }
    let mut constants: Vec<&str> = Vec::new();
    for summand in &verdict.constants {
        if !constants.contains(&summand.constant.as_str()) {
            constants.push(&summand.constant);
        }
    }
    match constants.len() {
        0 => format!("`{output}` = W(x)x"),
        1 => format!(
            "`{output}` = W(x)x plus a constant term ({})",
            named(&constants)
        ),
        n => format!(
            "`{output}` = W(x)x plus {n} constant terms ({})",
            named(&constants)
        ),
    }
}

fn difference(step: &Step) -> String {
    match step.nodes_after as i64 - step.nodes_before as i64 {
        0 => String::new(),
        difference => format!("{difference:+}"),
    }
}

/// Number of different messages of a pass that are shown; further ones are counted.
const LARGEST_GROUPS: usize = 6;
/// Number of nodes that are named.
const NAMED: usize = 3;

/// Groups equal texts into one line with a count, or with the node names if `name` is set.
fn grouped<'a>(entries: impl Iterator<Item = (String, &'a str)>, name: bool) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (text, node) in entries {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, nodes)) => nodes.push(node),
            None => groups.push((text, vec![node])),
        }
    }
    let rest = groups.split_off(groups.len().min(LARGEST_GROUPS));
    let mut lines: Vec<String> = groups
        .into_iter()
        .map(|(text, nodes)| match name {
            true => format!("{}: {text}", named(&nodes)),
            false if nodes.len() == 1 => format!("{}: {text}", nodes[0]),
            false => format!("{} x {text}", nodes.len()),
        })
        .collect();
    let more: usize = rest.iter().map(|(_, nodes)| nodes.len()).sum();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

fn named(nodes: &[&str]) -> String {
    let shown = nodes
        .iter()
        .take(NAMED)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match nodes.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Right-aligns columns of numbers.
pub fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A number with thousands separators.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes with a suitable unit.
pub fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// A number in scientific notation.
pub fn figure(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_groups_of_three() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn equal_changes_are_counted_and_single_ones_named() {
        let changes = [
            ("gone".to_owned(), "a"),
            ("gone".to_owned(), "b"),
            ("new".to_owned(), "c"),
        ];
        assert_eq!(grouped(changes.into_iter(), false), ["2 x gone", "c: new"]);
    }

    #[test]
    fn skipped_nodes_are_named() {
        let skips = ["a", "b", "c", "d"].map(|node| ("no shape".to_owned(), node));
        assert_eq!(
            grouped(skips.into_iter(), true),
            ["a, b, c and 1 more: no shape"]
        );
    }
}
