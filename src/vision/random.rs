//! Random numbers that depend only on the seed and their purpose.
//!
//! xoshiro256++ is one of the generators whose numbers `rand` guarantees, and what it makes of them stays the same
//! within a minor version.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// The generator for one purpose, such as the picture `parts[2]` in the epoch `parts[1]`.
pub(crate) fn rng(seed: u64, parts: &[u64]) -> Xoshiro256PlusPlus {
    let mix = |seed: u64, part: &u64| {
        let drawn: u64 = Xoshiro256PlusPlus::seed_from_u64(seed).random();
        drawn.wrapping_add(*part)
    };
    Xoshiro256PlusPlus::seed_from_u64(parts.iter().fold(seed, mix))
}
