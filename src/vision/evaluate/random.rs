//! Random numbers that depend only on the seed and their purpose.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// The generator for one part of an evaluation.
pub(super) fn rng(seed: u64, parts: &[u64]) -> Xoshiro256PlusPlus {
    let mix = |seed: u64, part: &u64| {
        let drawn: u64 = Xoshiro256PlusPlus::seed_from_u64(seed).random();
        drawn.wrapping_add(*part)
    };
    Xoshiro256PlusPlus::seed_from_u64(parts.iter().fold(seed, mix))
}
