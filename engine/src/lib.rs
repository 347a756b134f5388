//! Running graphs: what is known of them before they run, their outputs, and proofs that two
//! graphs compute the same.

#![warn(missing_docs)]

mod tract;

pub use tract::{InputShapes, Network, Session, Tract};
