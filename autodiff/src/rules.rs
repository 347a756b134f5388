//! Tables of backward rules.

use bcosc_ir::Op;

use crate::context::Rule;

/// Rules by the name of a standard operator, sorted.
pub(crate) type Table = &'static [(&'static str, Rule)];

/// The rule of an operator: of the first table that has one.
pub(crate) fn of(tables: &[Table], op: &Op) -> Option<Rule> {
    if !op.domain().is_empty() {
        return None;
    }
    tables.iter().find_map(|table| {
        let found = table.binary_search_by_key(&op.op_type(), |(name, _)| name);
        found.ok().map(|index| table[index].1)
    })
}
