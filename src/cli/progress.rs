//! A line on the terminal that says what is being done, once it takes long.

use std::borrow::Cow;
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
            Event::Pass { step, .. } => {
                self.bar.set_message(format!("converting: {}", step.pass));
            }
            _ => {}
        }
    }

    /// Shows how many of so many are done.
    pub fn count(&self, what: impl Into<Cow<'static, str>>, length: usize) {
        const TEMPLATE: &str = "{msg} {wide_bar} {pos} of {len} [{elapsed}, {eta} left]";
        self.bar.reset();
        self.bar.set_message(what);
        self.bar.set_length(length as u64);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            self.bar.set_style(style);
        }
    }

    /// One more is done.
    pub fn advance(&self) {
        self.bar.inc(1);
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
