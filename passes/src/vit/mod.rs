//! Passes for networks of tokens, beside those that all recipes share.

pub mod reorder_head;
mod vectors;
