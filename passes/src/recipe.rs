//! The recipes: which passes run, in which order.

use crate::Pass;

/// What every recipe starts with: the canonical form.
pub static CANONICAL: &[&dyn Pass] = &[];

/// Classic convolutional networks.
pub static CNN: &[&dyn Pass] = &[];
