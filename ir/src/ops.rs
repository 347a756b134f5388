//! The register of standard operators.
//!
//! `ops/table.rs` is generated from the schemas of the `onnx` package: inputs, outputs, attributes and their defaults,
//! and the opsets at which they changed. `ops/traits.rs` is written by hand: what passes ask of operators beyond
//! that, as in "does it only change the shape?". What one stage does with an operator is that stage's own table.
//!
//! ```
//! use bcosc_ir::ops::{self, Trait};
//! use bcosc_ir::{Attribute, Op};
//!
//! let op = Op::new("", "LeakyRelu");
//! assert_eq!(op.get("alpha"), Some(0.01_f32));
//! assert_eq!(op.with(Attribute::float("alpha", 0.2)).get("alpha"), Some(0.2_f32));
//! assert!(Op::new("", "Reshape").has(Trait::View));
//!
//! let slice = ops::find("Slice").map(|operator| operator.schema(17));
//! assert_eq!(slice.and_then(|schema| schema.input("axes")), Some(3));
//! ```

mod read;
mod schema;
mod table;
mod traits;

pub use read::AttributeValue;
pub use schema::{Arity, AttributeKind, AttributeSchema, Formal, Literal, Operator, Schema};
pub use table::{NEWEST, OLDEST};
pub use traits::Trait;

use crate::Op;
use table::OPERATORS;

/// The standard operator of a name.
pub fn find(name: &str) -> Option<&'static Operator> {
    let found = OPERATORS.binary_search_by_key(&name, |operator| operator.name);
    found.ok().map(|index| &OPERATORS[index])
}

/// Every standard operator, by name.
pub fn all() -> impl Iterator<Item = &'static Operator> {
    OPERATORS.iter()
}

/// The names of the standard operators that have a trait, in order.
pub fn having(wanted: Trait) -> impl Iterator<Item = &'static str> {
    let names = OPERATORS.iter().map(|operator| operator.name);
    names.filter(move |name| wanted.holds_for(name))
}

impl Op {
    /// The row of the register; `None` for an operator of another domain, and for one that is not known.
    pub fn operator(&self) -> Option<&'static Operator> {
        find(self.op_type()).filter(|_| self.domain().is_empty())
    }

    /// Whether this is a standard operator that can do without an input in an opset.
    pub fn can_omit(&self, slot: usize, opset: i64) -> bool {
        let operator = self.operator();
        operator.is_some_and(|operator| operator.schema(opset).is_optional(slot))
    }

    /// Whether this is a standard operator that has a trait.
    pub fn has(&self, wanted: Trait) -> bool {
        self.domain().is_empty() && wanted.holds_for(self.op_type())
    }

    /// Whether this is a standard operator that has one of several traits.
    pub fn has_any(&self, wanted: &[Trait]) -> bool {
        wanted.iter().any(|&wanted| self.has(wanted))
    }
}
