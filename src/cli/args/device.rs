//! `--device`, for commands that run models.

use bcosc::DeviceChoice;
use clap::Args;

/// Where models run.
#[derive(Args, Clone, Copy, Debug)]
pub struct DeviceArgs {
    /// Where models run: `auto` is the first CUDA device if there is one, and otherwise the CPU; --verbose says which, and why
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value_t = DeviceChoice::default(), help_heading = "Device")]
    pub device: DeviceChoice,
}
