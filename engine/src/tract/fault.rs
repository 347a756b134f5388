//! Errors and panics of tract.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use tract_onnx::prelude::TractResult;

use crate::EngineError;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What went wrong, and where in the graph.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    place: String,
    reason: String,
}

impl Fault {
    pub fn new(place: impl Into<String>, reason: impl fmt::Display) -> Self {
        Fault {
            place: place.into(),
            reason: reason.to_string(),
        }
    }

    pub fn loading(self) -> EngineError {
        let Fault { place, reason } = self;
        EngineError::Load { place, reason }
    }

    pub fn preparing(self) -> EngineError {
        let Fault { place, reason } = self;
        EngineError::Shapes { place, reason }
    }

    pub fn running(self) -> EngineError {
        let Fault { place, reason } = self;
        EngineError::Run { place, reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// Runs `f`; an error or a panic inside tract becomes a fault at `place`.
///
/// tract asserts some of what a model file may get wrong (kernel sizes, allocations), and a bad
/// model must not take the process down.
pub(crate) fn guarded<T>(
    place: impl FnOnce() -> String,
    f: impl FnOnce() -> TractResult<T>,
) -> Result<T, Fault> {
    silence_caught_panics();
    let before = QUIET.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    QUIET.set(before);
    let reason = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => format!("{error:#}"),
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied());
            text.unwrap_or("panicked").to_owned()
        }
    };
    Err(Fault::new(place(), reason))
}

/// Panics that [`guarded`] catches are not printed; all others go to the hook that was there.
fn silence_caught_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_says_where() {
        let error = guarded(
            || "node `a`".into(),
            || -> TractResult<()> { panic!("kernel {}", 0) },
        );
        assert_eq!(error.unwrap_err().to_string(), "node `a`: kernel 0");
    }
}
