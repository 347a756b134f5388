//! A line on the terminal that says what is being done, once it takes long.

use std::thread;
use std::time::Duration;

use bcosc::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over sooner than this needs no display.
const PATIENCE: Duration = Duration::from_millis(800);

/// The display; nothing is drawn unless stderr is a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A display that is drawn after a while if it is `animated`.
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

    /// Shows what is going on.
    pub fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Stage(stage) => self.bar.set_message(stage.describe()),
            Event::Pass {
                step, index, count, ..
            } => {
                self.bar.set_message(format!(
                    "converting: {} ({} of {count})",
                    step.pass,
                    index + 1
                ));
            }
            _ => {}
        }
    }

    /// Shows how much of something is done. Called with 0 where it begins, and then once for each that is done.
    pub fn count(&self, done: usize, of: usize, text: impl FnOnce() -> String) {
        if done > 0 {
            self.bar.inc(1);
            return;
        }
        self.bar.reset();
        self.bar.set_length(of as u64);
        self.bar.set_message(text());
        let template = "{spinner} {msg} {bar:24} {human_pos}/{human_len} [{elapsed}, {eta} left]";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// Shows what is going on, in words.
    pub fn say(&self, text: &'static str) {
        self.bar.set_message(text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
