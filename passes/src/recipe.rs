//! The recipes: which passes run, in which order.

use crate::Pass;
use crate::canonical;
use crate::clip;
use crate::cnn::*;
use crate::opset::RaiseOpset;
use crate::vit;

/// What every recipe starts with: the canonical form.
pub static CANONICAL: &[&dyn Pass] = &[
    // Everything is an operator, a constant or a tensor, in the opset that is asked for.
    &canonical::InlineFunctions,
    &canonical::DropDefaultInputs,
    &RaiseOpset,
    &canonical::ResolveSequences,
    // What can be computed now is, and what then does nothing goes.
    &canonical::FoldConstants,
    &canonical::Simplify,
    &canonical::RemoveDead,
];

/// Convolutional networks, after the canonical form.
pub static CNN: &[&dyn Pass] = &[
    // Norms: statistics into biases, folded ones restored while every convolution still has its bias.
    &uncentre_norms::UncentreNorms,
    &restore_norms::RestoreNorms,
    // Structure at both ends.
    &reorder_head::ReorderHead,
    &vit::reorder_head::ReorderTokenHead,
    &double_input::DoubleInput,
    // Departures from the original.
    &average_pool::AveragePools,
    &remove_biases::RemoveBiases,
    // What B-cos is, with norms that fit before and after.
    &calibrate_norms::CalibrateNorms,
    &bcos::Bcos,
    &remeasure_norms::RemeasureNorms,
    &logit_bias::AddLogitBias,
    // With --deploy: fast forms of what stands between here and the runtime.
    &deploy::fold_norms::FoldNormScales,
    &deploy::fold_doubling::FoldDoubling,
    &deploy::square_relu::SquareAfterRelu,
    &deploy::narrow::NarrowScales,
    &deploy::merge::MergeWeights,
    &deploy::signed_square::SignedSquares,
    &deploy::accumulate::AccumulateEnergies,
    &deploy::lower::LowerDeploy,
    &deploy::stay_in_blocks::StayInBlocks,
    &deploy::chunks::ChunkChannels,
    // Plain operators for all that is left.
    &lower::Lower,
];

/// Networks with attention, mixers and modern convolutional networks, after the canonical form: as
/// [`CNN`], and every token gets its own say.
pub static VIT: &[&dyn Pass] = &[
    &uncentre_norms::UncentreNorms,
    &restore_norms::RestoreNorms,
    // Structure at both ends; a head that a norm separates from the mean departs.
    &reorder_head::ReorderHead,
    &vit::reorder_head::ReorderTokenHead,
    &vit::reorder_head::ReorderHeadAndNorm,
    &double_input::DoubleInput,
    &average_pool::AveragePools,
    &remove_biases::RemoveBiases,
    // Projections of attention stay linear.
    &calibrate_norms::CalibrateNorms,
    &bcos::Bcos,
    &remeasure_norms::RemeasureNorms,
    &logit_bias::AddLogitBias,
    &deploy::fold_norms::FoldNormScales,
    &deploy::fold_doubling::FoldDoubling,
    &deploy::square_relu::SquareAfterRelu,
    &deploy::narrow::NarrowScales,
    &deploy::merge::MergeWeights,
    &deploy::signed_square::SignedSquares,
    &deploy::accumulate::AccumulateEnergies,
    &deploy::lower::LowerDeploy,
    &deploy::stay_in_blocks::StayInBlocks,
    &deploy::chunks::ChunkChannels,
    &lower::Lower,
];

/// Image towers of CLIP, after the canonical form: as [`VIT`], with attention pools, and without a logit
/// bias, since embeddings are no logits.
pub static CLIP: &[&dyn Pass] = &[
    &uncentre_norms::UncentreNorms,
    &restore_norms::RestoreNorms,
    &double_input::DoubleInput,
    &average_pool::AveragePools,
    // The pool at the end loses what it adds, or lets every position through.
    &clip::drop_positions::DropPoolPositions,
    &clip::unpool::UnpoolAttention,
    &remove_biases::RemoveBiases,
    &calibrate_norms::CalibrateNorms,
    &bcos::Bcos,
    &remeasure_norms::RemeasureNorms,
    &deploy::fold_norms::FoldNormScales,
    &deploy::fold_doubling::FoldDoubling,
    &deploy::square_relu::SquareAfterRelu,
    &deploy::narrow::NarrowScales,
    &deploy::merge::MergeWeights,
    &deploy::signed_square::SignedSquares,
    &deploy::accumulate::AccumulateEnergies,
    &deploy::lower::LowerDeploy,
    &deploy::stay_in_blocks::StayInBlocks,
    &deploy::chunks::ChunkChannels,
    &lower::Lower,
];
