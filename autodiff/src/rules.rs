//! Tables of backward rules.

use bcosc_ir::Op;
use bcosc_passes::dialect::DOMAIN;

use crate::context::Rule;

/// Rules by the name of a standard operator, sorted.
pub(crate) type Table = &'static [(&'static str, Rule)];

/// The rule of an operator: of the first table that has one. Tables of `markers` are for operators in the
/// domain `bcosc`.
pub(crate) fn of(tables: &[Table], markers: &[Table], op: &Op) -> Option<Rule> {
    let tables = match op.domain() {
        "" => tables,
        DOMAIN => markers,
        _ => return None,
    };
    tables.iter().find_map(|table| {
        let found = table.binary_search_by_key(&op.op_type(), |(name, _)| name);
        found.ok().map(|index| table[index].1)
    })
}
