//! Errors, warnings and logs on stderr.

use std::io::{self, IsTerminal, Write};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::OutputArgs;

/// Verbosity and colours.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    quiet: bool,
    verbose: u8,
    colours: bool,
}

impl Messages {
    /// Reads the flags and sets up logging.
    pub fn new(args: OutputArgs) -> Self {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let level = match (args.quiet, args.verbose) {
            (true, _) | (false, 0) => None,
            (false, 1) => Some(Level::DEBUG),
            (false, _) => Some(Level::TRACE),
        };
        if let Some(level) = level {
            // All crates of this workspace have this prefix.
            let ours = Targets::new().with_target("bcosc", level);
            let subscriber = tracing_subscriber::fmt()
                .with_writer(io::stderr)
                .with_ansi(colours)
                .with_target(false)
                .without_time()
                .with_max_level(level)
                .finish()
                .with(ours);
            // Fails only if a subscriber is already set.
            let _ = subscriber.try_init();
        }
        Messages {
            quiet: args.quiet,
            verbose: args.verbose,
            colours,
        }
    }

    /// Whether only errors are printed.
    pub fn quiet(self) -> bool {
        self.quiet
    }

    /// Whether `--verbose` was given.
    pub fn verbose(self) -> bool {
        self.verbose > 0
    }

    /// Whether progress may be drawn on stderr.
    pub fn animated(self) -> bool {
        !self.quiet && self.verbose == 0 && io::stderr().is_terminal()
    }

    /// Prints an error and its causes.
    pub fn error(self, error: &anyhow::Error) {
        let mut text = error.to_string();
        self.line("error", "31", &text);
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            // Some messages already include their cause.
            if !text.contains(&cause) {
                self.print(&format!("  caused by: {cause}"));
            }
            text = cause;
        }
    }

    /// Prints a warning.
    pub fn warning(self, text: &str) {
        if !self.quiet {
            self.line("warning", "33", text);
        }
    }

    fn line(self, kind: &str, colour: &str, text: &str) {
        match self.colours {
            true => self.print(&format!(
                "\x1b[1;{colour}m{kind}\x1b[0m\x1b[1m:\x1b[0m {text}"
            )),
            false => self.print(&format!("{kind}: {text}")),
        }
    }

    fn print(self, line: &str) {
        // If stderr is closed, there is nowhere to report it.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}
