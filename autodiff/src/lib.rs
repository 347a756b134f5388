//! Reverse mode over the graph: what explanations and training are made of.
//!
//! | module | what it has |
//! |---|---|
//! | [`activity`] | which values are differentiated |
//! | `reverse` | the driver: goes from outputs back to what is asked for, one rule an operator |
//! | `rules`, `context` | tables of rules, and what a rule works with |
//! | `transpose` | rules of linear maps, which any use shares |
//! | [`detached`] | rules of explanations, with every dynamic factor held fixed |
//! | [`explanation`] | the explanation graph |
//!
//! A use of reverse mode is a list of tables and a filter that says which operands it follows:
//! explanations put [`detached`]'s table before the shared one, and follow what is linear. Full derivatives
//! are a table of their own before the same shared one, and a filter that lets all floating-point values
//! through; driver, activity and transposes stay as they are.

pub mod activity;
mod context;
pub mod detached;
pub mod explanation;
pub mod parts;
mod reverse;
mod rules;
mod transpose;

#[cfg(test)]
mod pytorch;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
