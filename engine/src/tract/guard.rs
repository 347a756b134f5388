//! Errors and panics of tract as [`InterpreterError`]s.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use bcosc_ir::InterpreterError;
use tract_onnx::prelude::TractResult;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; an error or a panic inside tract becomes an error that says what was being done.
///
/// tract asserts some of what a model file may get wrong (kernel sizes, allocations), and a bad
/// model must not take the process down.
pub(crate) fn guarded<T>(
    doing: impl FnOnce() -> String,
    f: impl FnOnce() -> TractResult<T>,
) -> Result<T, InterpreterError> {
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
    Err(InterpreterError(format!("{}: {reason}", doing())))
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
