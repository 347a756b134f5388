//! Recipes: ordered lists of passes.
//!
//! A recipe is a list of stages, and a stage a list of passes; recipes share stages.

use crate::Pass;
use crate::bcos::attention_pool::{positions::DROP_POOL_POSITIONS, unpool::UNPOOL_ATTENTION};
use crate::bcos::biases::REMOVE_BIASES;
use crate::bcos::carry::CARRY_BIASES;
use crate::bcos::head::reorder::REORDER_HEAD;
use crate::bcos::head::reorder_tokens::{REORDER_HEAD_AND_NORM, REORDER_TOKEN_HEAD};
use crate::bcos::input::double::DOUBLE_INPUT;
use crate::bcos::layers::BCOS;
use crate::bcos::logit_bias::ADD_LOGIT_BIAS;
use crate::bcos::lower::LOWER;
use crate::bcos::norms::calibrate::CALIBRATE_NORMS;
use crate::bcos::norms::remeasure::REMEASURE_NORMS;
use crate::bcos::norms::restore::RESTORE_NORMS;
use crate::bcos::norms::uncentre::UNCENTRE_NORMS;
use crate::bcos::pools::AVERAGE_POOLS;
use crate::canonical::opset::RAISE_OPSET;
use crate::canonical::{
    DROP_DEFAULT_INPUTS, FOLD_CONSTANTS, INLINE_FUNCTIONS, REMOVE_DEAD, RESOLVE_SEQUENCES, SIMPLIFY,
};
use crate::deploy::accumulate::ACCUMULATE_ENERGIES;
use crate::deploy::fold_doubling::FOLD_DOUBLING;
use crate::deploy::fold_norms::FOLD_NORM_SCALES;
use crate::deploy::keep_blocked_layout::KEEP_BLOCKED_LAYOUT;
use crate::deploy::lower::LOWER_DEPLOY;
use crate::deploy::merge_scales::MERGE_SCALES;
use crate::deploy::scale_inputs::SCALE_INPUTS;
use crate::deploy::signed_square::SIGNED_SQUARES;
use crate::deploy::square_relu::SQUARE_AFTER_RELU;

/// Passes in order.
pub type Passes = [&'static Pass];

/// The canonical form, the start of every recipe.
pub static CANONICAL: &Passes = &[
    // Only operators, constants and tensors remain, in the requested opset.
    &INLINE_FUNCTIONS,
    &DROP_DEFAULT_INPUTS,
    &RAISE_OPSET,
    &RESOLVE_SEQUENCES,
    // Evaluate constants, then remove what has no effect.
    &FOLD_CONSTANTS,
    &SIMPLIFY,
    &REMOVE_DEAD,
];

/// Means move into biases; folded norms are restored while every convolution still has its bias.
static NORMS: &Passes = &[&UNCENTRE_NORMS, &RESTORE_NORMS];
/// The linear head moves before the pooling.
static HEAD: &Passes = &[&REORDER_HEAD, &REORDER_TOKEN_HEAD];
/// The same for a head with a norm before it, which alters the function.
static HEAD_AND_NORM: &Passes = &[&REORDER_HEAD_AND_NORM];
/// With --calibrate, restored norms then get the scale that values have in the original: biases and pools are still its own.
static INPUT: &Passes = &[&DOUBLE_INPUT, &CALIBRATE_NORMS];
/// Alterations of the original.
static POOLS: &Passes = &[&AVERAGE_POOLS];
/// Alterations of the attention pool at the end.
static ATTENTION_POOL: &Passes = &[&DROP_POOL_POSITIONS, &UNPOOL_ATTENTION];
static BIASES: &Passes = &[&REMOVE_BIASES];
/// The B-cos layers, and the statistics of norms behind them.
static LAYERS: &Passes = &[&BCOS, &REMEASURE_NORMS];
/// With --biases carry instead of [`BIASES`]: after the layers, which see biases where they are.
static CARRY: &Passes = &[&CARRY_BIASES];
static LOGIT_BIAS: &Passes = &[&ADD_LOGIT_BIAS];
/// Lowering: with --deploy the fast forms first, then the remaining markers.
pub static LOWERING: &Passes = &[
    &FOLD_NORM_SCALES,
    &FOLD_DOUBLING,
    &SQUARE_AFTER_RELU,
    &SCALE_INPUTS,
    &MERGE_SCALES,
    &SIGNED_SQUARES,
    &ACCUMULATE_ENERGIES,
    &LOWER_DEPLOY,
    &KEEP_BLOCKED_LAYOUT,
    &LOWER,
];

/// Convolutional networks.
pub static CNN: &[&Passes] = &[
    CANONICAL, NORMS, HEAD, INPUT, POOLS, BIASES, LAYERS, CARRY, LOGIT_BIAS, LOWERING,
];

/// Networks with attention, mixers and modern convolutional networks: as [`CNN`], and every token gets
/// its own logits.
pub static VIT: &[&Passes] = &[
    CANONICAL,
    NORMS,
    HEAD,
    HEAD_AND_NORM,
    INPUT,
    POOLS,
    BIASES,
    LAYERS,
    CARRY,
    LOGIT_BIAS,
    LOWERING,
];

/// CLIP image encoders: no logit bias, since the output is an embedding.
pub static CLIP: &[&Passes] = &[
    CANONICAL,
    NORMS,
    INPUT,
    POOLS,
    ATTENTION_POOL,
    BIASES,
    LAYERS,
    CARRY,
    LOWERING,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured without biases, the scales of restored norms would not be those of the original, and training has to undo them.
    #[test]
    fn norms_are_calibrated_while_the_function_is_the_originals() {
        for recipe in [CNN, VIT, CLIP] {
            let names: Vec<&str> = recipe
                .iter()
                .flat_map(|s| s.iter())
                .map(|p| p.name)
                .collect();
            let place = |pass: &Pass| names.iter().position(|name| *name == pass.name).unwrap();
            let calibrated = place(&CALIBRATE_NORMS);
            assert!(place(&RESTORE_NORMS) < calibrated && place(&DOUBLE_INPUT) < calibrated);
            for altering in [&REMOVE_BIASES, &AVERAGE_POOLS, &BCOS] {
                assert!(calibrated < place(altering), "{}", altering.name);
            }
            assert!(place(&BCOS) < place(&REMEASURE_NORMS));
        }
    }
}
