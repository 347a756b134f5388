//! Composite operations, recognised in whatever operators exporters write them with.
//!
//! Nothing is rewritten: passes get one view of each, and the file keeps the form that it came in.

pub mod attention;
