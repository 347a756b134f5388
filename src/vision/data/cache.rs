//! Decoded pictures in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::vision::images::Pixels;

/// The first pictures that fit. None is ever replaced: an epoch takes each once, so no other choice finds more of them
/// again.
#[derive(Debug)]
pub(super) struct Cache {
    slots: Vec<OnceLock<Arc<Pixels>>>,
    /// Bytes in memory.
    pub used: AtomicU64,
    limit: u64,
}

impl Cache {
    /// For so many pictures, of `limit` bytes in total.
    pub fn new(pictures: usize, limit: u64) -> Self {
        Cache {
            slots: (0..pictures).map(|_| OnceLock::new()).collect(),
            used: AtomicU64::new(0),
            limit,
        }
    }

    /// A picture, made by `make` if it is not in memory.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get<E>(
        &self,
        index: usize,
        make: impl FnOnce() -> Result<Pixels, E>,
    ) -> Result<Arc<Pixels>, E> {
        let slot = self.slots.get(index);
        if let Some(found) = slot.and_then(OnceLock::get) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(make()?);
        if let Some(slot) = slot {
            let bytes = made.data.len() as u64;
            let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
            let fits = self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
            // Two threads may have made the same picture.
            if fits.is_ok() && slot.set(Arc::clone(&made)).is_err() {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn pictures_stay_up_to_the_limit() {
        let cache = Cache::new(3, 10);
        let made = |index| {
            let mut made = false;
            let make = || {
                made = true;
                let data = vec![0; 4];
                Ok::<_, Infallible>(Pixels {
                    channels: 1,
                    height: 2,
                    width: 2,
                    data,
                })
            };
            let Ok(_) = cache.get(index, make);
            made
        };
        assert_eq!(
            [0, 1, 2, 0, 1, 2].map(made),
            [true, true, true, false, false, true]
        );
        assert_eq!(cache.used.load(Ordering::Relaxed), 8);
    }
}
