//! Ctrl-C and termination signals.

use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use std::sync::atomic::{AtomicBool, Ordering};

/// Locked while an output file is written.
static WRITING: Mutex<()> = Mutex::new(());

/// Whether the process was interrupted before.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether an interrupt is only noted, for the work to stop by itself.
static NOTED: AtomicBool = AtomicBool::new(false);

/// Exit status after an interrupt, by shell convention.
const INTERRUPTED: i32 = 130;

/// Exits on an interrupt, but first waits for an output file that is being written, so that no partial or
/// temporary file is left. A second interrupt does not wait.
pub fn install() {
    let handler = || {
        if ASKED.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED);
        }
        if NOTED.load(Ordering::SeqCst) {
            return;
        }
        thread::spawn(|| {
            let _writing = writing();
            process::exit(INTERRUPTED);
        });
    };
    // Without a handler, an interrupt still ends the process.
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::debug!(%error, "cannot install an interrupt handler");
    }
}

/// From now on the first interrupt only sets this flag, so that the work can end where it is safe. A second one exits.
pub fn note_only() -> &'static AtomicBool {
    NOTED.store(true, Ordering::SeqCst);
    &ASKED
}

/// A guard to hold while an output file is written.
pub fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}
