//! How each operator becomes expressions: one row for each in the tables of these files.
//!
//! | file | operators |
//! |---|---|
//! | `elementwise` | functions of elements |
//! | `structural` | views, and what moves elements |
//! | `padding` | borders, and blocks that move between axes |
//! | `indexing` | indices that are computed |
//! | `reductions` | sums and extrema along axes, softmax |
//! | `norms` | statistics and scales |
//! | `windows` | pools, resizing |
//! | `grid_sample` | samples between elements |
//! | `attention` | attention, as products and a softmax |
//! | `convolutions`, `one_by_one`, `transposed`, `window_sums`, `products` | calls of libraries; `factors` is where they read |

mod attention;
mod context;
mod convolutions;
mod elementwise;
mod factors;
mod grid_sample;
mod indexing;
mod norms;
mod one_by_one;
mod padding;
mod products;
mod reductions;
mod structural;
mod transposed;
mod window_sums;
mod windows;

pub use context::{Outputs, Reason, RuleContext};

/// How an operator becomes tensors of a program, one for each output.
pub type Rule = fn(&mut RuleContext<'_>) -> Result<Outputs, Reason>;

/// Operators and their rules.
pub type Table = &'static [(&'static str, Rule)];

const TABLES: &[Table] = &[
    attention::RULES,
    elementwise::RULES,
    grid_sample::RULES,
    structural::RULES,
    padding::RULES,
    indexing::RULES,
    reductions::RULES,
    norms::RULES,
    windows::RULES,
    convolutions::RULES,
    transposed::RULES,
    products::RULES,
];

/// Operators of the domain `bcosc`.
const MARKERS: Table = convolutions::MARKERS;

/// The rule of an operator.
pub fn rule(domain: &str, op_type: &str) -> Option<Rule> {
    let tables = match domain {
        "" => TABLES,
        bcosc_passes::dialect::DOMAIN => &[MARKERS],
        _ => return None,
    };
    let mut rows = tables.iter().flat_map(|table| table.iter());
    rows.find(|(name, _)| *name == op_type)
        .map(|(_, rule)| *rule)
}

/// The standard operators that the engine computes, table by table.
pub fn operators() -> impl Iterator<Item = &'static str> {
    let rows = TABLES.iter().flat_map(|table| table.iter());
    rows.map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_has_two_rules() {
        let mut names: Vec<&str> = operators().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        for table in TABLES {
            assert!(table.is_sorted_by_key(|(name, _)| name));
        }
    }
}
