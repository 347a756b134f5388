//! Progress on the terminal for tasks that take a while.

use std::borrow::Cow;
use std::thread;
use std::time::Duration;

use bcosc::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shorter tasks show no progress.
const PATIENCE: Duration = Duration::from_millis(800);

/// A spinner or progress bar; drawn only if stderr is a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Progress that is drawn after a delay if `animated`.
    pub fn new(animated: bool) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
            bar.set_style(style);
        }
        if animated {
            let bar = bar.clone();
            thread::spawn(move || {
                thread::sleep(PATIENCE);
                if !bar.is_finished() {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(Duration::from_millis(100));
                }
            });
        }
        Progress { bar }
    }

    /// Shows the current step of a conversion.
    pub fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Stage(stage) => self.bar.set_message(stage.describe()),
            Event::Pass { step, .. } => {
                self.bar.set_message(format!("converting: {}", step.pass));
            }
            _ => {}
        }
    }

    /// Starts a progress bar.
    pub fn count(&self, what: impl Into<Cow<'static, str>>, length: usize) {
        const TEMPLATE: &str = "{msg} {wide_bar} {pos} of {len} [{elapsed}, {eta} left]";
        self.bar.reset();
        self.bar.set_message(what);
        self.bar.set_length(length as u64);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            self.bar.set_style(style);
        }
    }

    /// Advances the progress bar.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// Moves the progress bar.
    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Shows a message that changes often.
    pub fn describe(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Prints a line above the progress bar.
    pub fn print(&self, line: String) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Shows a message.
    pub fn say(&self, text: &'static str) {
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
