//! Reverse-mode differentiation on the graph, for explanations and training.
//!
//! | module | content |
//! |---|---|
//! | [`activity`] | which values are differentiated |
//! | `reverse` | the driver: propagates cotangents from outputs to the requested values |
//! | `rules`, `context` | tables of backward rules, and the context of a rule |
//! | `recompute` | pieces of the forward pass that rules compute again |
//! | `transpose` | rules of linear operators, shared by all uses |
//! | [`derivative`] | rules of full derivatives, for training |
//! | [`detached`] | rules of explanations, with every dynamic factor held fixed |
//! | [`explanation`] | the explanation graph |
//! | [`lower`] | gradients of convolutions as standard operators |
//! | [`parts`] | the explanation graph in two parts |
//! | [`scores`] | the output that is explained |
//! | `sizes` | sizes computed in 32 bits |
//! | [`training`] | the training-step graph |
//!
//! A use of reverse mode is a list of tables and a filter that says which operands it follows:
//! explanations put [`detached`]'s table before the shared one, and follow what is linear; training puts
//! [`derivative`]'s table there, and follows every floating-point value.

pub mod activity;
mod build;
mod context;
pub mod derivative;
pub mod detached;
pub mod explanation;
pub mod lower;
pub mod parts;
mod recompute;
mod reverse;
mod rules;
pub mod scores;
mod sizes;
pub mod training;
mod transpose;

#[cfg(test)]
mod pytorch;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
