//! Passes for networks of tokens, beside those that all recipes share.

mod pooled_head;
pub mod reorder_head;
