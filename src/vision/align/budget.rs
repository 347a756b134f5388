//! A budget of time: how many steps of a phase fit into it, once some are timed.

use std::time::{Duration, Instant};

use super::options::AlignOptions;
use super::phases::Phase;

/// Steps that are timed to fit a phase into its budget; the first is not.
pub(super) const TIMED: u64 = 4;
/// The fewest steps of a phase, whatever its budget.
const FEWEST: u64 = 8;

/// The budget of a phase.
#[derive(Debug)]
pub(super) struct Budget {
    /// For all phases, from `begun` on.
    all: Duration,
    begun: Instant,
    /// The phase's share of what is left.
    share: f64,
    /// The end of its first step, and how many steps were done then.
    first: Option<(Instant, u64)>,
}

impl Budget {
    /// The budget of a phase whose steps it sets, for a run that began then.
    pub fn of(options: &AlignOptions, phase: &Phase, share: f64, begun: Instant) -> Option<Self> {
        // Steps of growth that are asked for are kept.
        let growth = options.growth.filter(|_| phase.grows());
        let is_set = growth.is_some_and(|growth| growth.steps.is_some());
        Some(Budget {
            all: options.budget.filter(|_| !is_set)?,
            begun,
            share,
            first: None,
        })
    }

    /// The steps of the phase, once enough are timed; `done` is how many are done by now.
    pub fn steps(&mut self, done: u64) -> Option<u64> {
        let (first, before) = *self.first.get_or_insert_with(|| (Instant::now(), done));
        let timed = done - before;
        if timed + 1 < TIMED {
            return None;
        }
        let each = first.elapsed().as_secs_f64() / timed as f64;
        let left = self.all.saturating_sub(self.begun.elapsed()).as_secs_f64();
        Some((done + (left * self.share / each) as u64).max(FEWEST))
    }
}
