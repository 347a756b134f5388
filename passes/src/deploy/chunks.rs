//! Large images are computed in chunks of channels.
//!
//! Between two convolutions, a B-cos layer reads an image several times: for absolute values, squares, scales and
//! sums of squares. An image that does not fit a processor's cache is read from memory every time. Operators on
//! single channels can work chunk by chunk instead, each while it is in the cache. A convolution that computes
//! chunks has its weights cut by output channel, one that reads them by input channel:
//!
//! ```text
//! x = Conv (v, w)        x_1 = Conv (v, w[:C/2]),           x_2 = Conv (v, w[C/2:])
//! y = Mul (x, x)         y_1 = Mul (x_1, x_1),              y_2 = Mul (x_2, x_2)
//! z = Conv (y, w)        z = Add (Conv (y_2, w[:, C/2:]), Conv (y_1, w[:, :C/2]))
//! ```

mod plan;
mod write;

use bcosc_ir::Model;

use crate::{Context, Effect, Outcome, Pass, PassError};

use plan::Plan;
use write::Writer;

/// The pass.
pub static CHUNK_CHANNELS: Pass = Pass {
    name: "chunk-channels",
    summary: "with --deploy: compute large images in chunks of channels that fit a cache",
    effect: Effect::Exact,
    requires: &[&crate::deploy::lower::LOWER_DEPLOY],
    run,
};

fn run(model: &mut Model, cx: &Context<'_>) -> Result<Outcome, PassError> {
    let mut outcome = Outcome::default();
    if !cx.settings.deploy {
        return Ok(outcome);
    }
    let mut typed = model.clone();
    cx.infer(&mut typed)?;
    let plan = Plan::of(&typed.graph, &mut outcome);
    let mut writer = Writer::new(&plan);
    for node in model.graph.ops() {
        writer.write(model, node)?;
    }
    model.graph.remove_dead();
    Ok(outcome)
}

#[cfg(test)]
mod tests;
