//! Moves the head before the pooling, so that every position has its own logits.

mod pooled;
pub mod reorder;
pub mod reorder_tokens;
