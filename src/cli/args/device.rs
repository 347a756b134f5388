//! `--device`, for commands that run models, and `--precision`, for those that prove nothing.

use bcosc::DeviceChoice;
use bcosc::engine::Precision;
use clap::Args;

/// Where models run.
#[derive(Args, Clone, Copy, Debug)]
pub struct DeviceArgs {
    /// Where models run: `auto` is the first CUDA device if there is one, and otherwise the CPU; --verbose says which, and why
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value_t = DeviceChoice::default(), help_heading = "Device")]
    pub device: DeviceChoice,
}

/// Where models run, and how exactly.
#[derive(Args, Clone, Copy, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub on: DeviceArgs,
    /// How products are rounded: `fp32` not at all; `tf32` their factors, to 10 bits; `bf16` factors and results, to 7 bits, with
    /// weights and sums in single precision. The last two need a CUDA device of compute capability 8.0 or newer
    #[arg(
        long,
        value_name = "fp32|tf32|bf16",
        default_value_t,
        help_heading = "Device"
    )]
    pub precision: Precision,
}
