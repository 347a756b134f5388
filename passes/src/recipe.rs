//! The recipes: which passes run, in which order.

use crate::Pass;
use crate::canonical;
use crate::cnn::*;
use crate::opset::RaiseOpset;

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

/// Classic convolutional networks, after the canonical form.
pub static CNN: &[&dyn Pass] = &[
    // Norms: statistics into biases, folded ones restored while every convolution still has its bias.
    &uncentre_norms::UncentreNorms,
    &restore_norms::RestoreNorms,
    // Structure at both ends.
    &reorder_head::ReorderHead,
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
    &deploy::blocked_sums::BlockedSums,
    &deploy::accumulate::AccumulateEnergies,
    &deploy::lower::LowerDeploy,
    // Plain operators for all that is left.
    &lower::Lower,
];
