//! Ctrl-C and polite requests to end.

use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use std::sync::atomic::{AtomicBool, Ordering};

/// Held while an output file is written.
static WRITING: Mutex<()> = Mutex::new(());

/// Whether an end was asked for before.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit status after an interrupt, as shells report it.
const INTERRUPTED: i32 = 130;

/// Ends the process on an interrupt, but lets a file that is being written become whole first, so
/// that neither half a file nor a temporary one is left. The second interrupt does not wait.
pub fn install() {
    let handler = || {
        if ASKED.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED);
        }
        thread::spawn(|| {
            let _writing = writing();
            process::exit(INTERRUPTED);
        });
    };
    // Without a handler an interrupt still ends the process.
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::debug!(%error, "no interrupt handler");
    }
}

/// Announces that an output file is written while the guard lives.
pub fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}
