//! Passes that convert a canonical network to a B-cos network.

pub mod attention_pool;
pub mod biases;
pub mod carry;
pub mod head;
pub mod input;
pub mod layers;
pub mod logit_bias;
pub mod lower;
pub mod norms;
pub(crate) mod ones;
pub mod pools;
#[cfg(test)]
mod robustness;
