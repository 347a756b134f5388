//! Buffers that share memory: the largest first, each at the lowest place that is free while it is needed.

use super::ALIGNMENT;

/// A buffer, from the step that writes it to the last one that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The first step.
    pub first: usize,
    /// The last step.
    pub last: usize,
    /// Its size.
    pub bytes: u64,
}

impl Lifetime {
    /// Whether both are needed during a step.
    pub fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Offsets, one for each buffer, and the size of the arena.
pub fn place(lifetimes: &[Lifetime]) -> (Vec<u64>, u64) {
    let rounded = |bytes: u64| bytes.max(1).next_multiple_of(ALIGNMENT);
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&n| (std::cmp::Reverse(lifetimes[n].bytes), lifetimes[n].first, n));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut size = 0;
    for n in order {
        let own = &lifetimes[n];
        let mut taken: Vec<(u64, u64)> = placed
            .iter()
            .filter(|&&other| own.meets(&lifetimes[other]))
            .map(|&other| {
                (
                    offsets[other],
                    offsets[other] + rounded(lifetimes[other].bytes),
                )
            })
            .collect();
        taken.sort_unstable();
        let mut start = 0;
        for (from, to) in taken {
            if start + rounded(own.bytes) <= from {
                break;
            }
            start = start.max(to);
        }
        offsets[n] = start;
        size = size.max(start + rounded(own.bytes));
        placed.push(n);
    }
    (offsets, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_two_live_buffers_overlap(
            drawn in proptest::collection::vec((0usize..40, 0usize..10, 0u64..5000), 0..60),
        ) {
            let lifetimes: Vec<Lifetime> = drawn
                .into_iter()
                .map(|(first, length, bytes)| Lifetime { first, last: first + length, bytes })
                .collect();
            let (offsets, size) = place(&lifetimes);
            for (n, own) in lifetimes.iter().enumerate() {
                prop_assert_eq!(offsets[n] % ALIGNMENT, 0);
                prop_assert!(offsets[n] + own.bytes <= size);
                for (m, other) in lifetimes.iter().enumerate().skip(n + 1) {
                    let apart = offsets[n] + own.bytes <= offsets[m] || offsets[m] + other.bytes <= offsets[n];
                    prop_assert!(apart || !own.meets(other), "{n} and {m}");
                }
            }
            // Nothing shares memory that is free: as much as is live at some step is not exceeded without need.
            let live = |step: usize| -> u64 {
                lifetimes.iter().filter(|l| l.first <= step && step <= l.last)
                    .map(|l| l.bytes.max(1).next_multiple_of(ALIGNMENT)).sum()
            };
            let most = (0..50).map(live).max().unwrap_or(0);
            prop_assert!(size >= most && size <= 2 * most.max(ALIGNMENT));
        }
    }
}
