//! Fine-tunes a network on a GPU from the folder that `bcosc MODEL -o OUT --emit cuda` writes, through the driver, NVRTC, cuDNN
//! and cuBLASLt; nothing of bcosc is needed. See `--help`.
//!
//! The folder holds `plan.json` (what runs, in which order, and where numbers are), `kernels.cu` (the kernels it launches),
//! `constants.safetensors` and `state.safetensors` (parameters and what the optimiser keeps). A step reads the inputs and the
//! state, and leaves the new state in the same memory.

#![allow(unsafe_code)]

mod convolution;
mod gpu;
mod npy;
mod plan;
mod product;

use std::error::Error;
use std::ffi::c_int;
use std::path::PathBuf;

use gpu::Gpu;
use npy::Npy;
use plan::Plan;

const HELP: &str = "\
Fine-tunes a network on a GPU, from a folder that `bcosc MODEL -o OUT --emit cuda` wrote.

Usage: finetune_cuda FOLDER --images IMAGES.npy --labels LABELS.npy [OPTIONS]

  --images FILE   float32 [N,C,H,W] in the input format of the model
  --labels FILE   int64 [N], the class of each image
  --steps N       steps [default: 100]
  --lr RATE       learning rate, which falls to 0 by a cosine [default: 0.001]
  --device N      number of the device [default: 0]
  -o, --out FILE  where the state goes [default: tuned.safetensors];
                  `bcosc merge MODEL FILE -o TUNED` puts it into the model

The plan has a fixed batch size; images come in their order, over and over. NVIDIA's driver, NVRTC, cuBLASLt and cuDNN 9 must be
where the system finds libraries, or in a folder of LD_LIBRARY_PATH:
  pip install nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12 nvidia-cudnn-cu12";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() {
    let done = Options::read().and_then(|options| options.map_or(Ok(()), |o| finetune(&o)));
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

struct Options {
    folder: PathBuf,
    images: PathBuf,
    labels: PathBuf,
    steps: u64,
    rate: f64,
    device: c_int,
    out: PathBuf,
}

impl Options {
    /// `None` if help was asked for.
    fn read() -> Result<Option<Self>> {
        let (mut folder, mut images, mut labels) = (None, None, None);
        let (mut steps, mut rate, mut device) = (100, 1e-3, 0);
        let mut out = PathBuf::from("tuned.safetensors");
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "-h" | "--help" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                "--images" => images = Some(value()?),
                "--labels" => labels = Some(value()?),
                "--steps" => steps = value()?.parse()?,
                "--lr" => rate = value()?.parse()?,
                "--device" => device = value()?.parse()?,
                "-o" | "--out" => out = value()?.into(),
                option if option.starts_with('-') => {
                    return Err(format!("there is no {option}; --help says what there is").into());
                }
                _ => folder = Some(argument),
            }
        }
        let given = |value: Option<String>, name: &str| {
            value
                .map(PathBuf::from)
                .ok_or(format!("{name} is missing; --help says what there is"))
        };
        Ok(Some(Options {
            folder: given(folder, "FOLDER")?,
            images: given(images, "--images")?,
            labels: given(labels, "--labels")?,
            steps,
            rate,
            device,
            out,
        }))
    }
}

fn finetune(options: &Options) -> Result<()> {
    let images = Npy::read(&options.images, "<f4")?;
    let labels = Npy::read(&options.labels, "<i8")?;
    let gpu = Gpu::open(options.device)?;
    let plan = Plan::load(&gpu, &options.folder)?;
    let (inputs, targets) = (plan.input(0)?, plan.named("inputs", "targets")?);
    let count = images.dims.first().copied().unwrap_or(0);
    if images.dims.get(1..) != inputs.dims.get(1..) || labels.dims != [count] || count == 0 {
        return Err(format!(
            "the plan takes images {:?}, but there are {:?} with labels {:?}",
            inputs.dims, images.dims, labels.dims
        )
        .into());
    }
    for step in 0..options.steps {
        let falls = f64::cos(std::f64::consts::PI * step as f64 / options.steps as f64);
        let rate = (options.rate * (1.0 + falls) / 2.0) as f32;
        let batch = inputs.dims[0];
        let first = step * batch % count;
        plan.fill(&inputs, &images.rows(first, batch))?;
        plan.fill(&targets, &labels.rows(first, batch))?;
        plan.fill(&plan.named("inputs", "learning_rate")?, &rate.to_le_bytes())?;
        plan.fill(
            &plan.named("inputs", "step")?,
            &(step as i64 + 1).to_le_bytes(),
        )?;
        plan.run(&gpu, &plan.steps)?;
        let loss = plan.read(&plan.named("outputs", "loss")?)?;
        let loss = f32::from_le_bytes(loss.try_into().map_err(|_| "the loss is no float32")?);
        println!("step {}: loss {loss:.4}", step + 1);
    }
    plan.save(&options.folder, &options.out)?;
    println!("wrote {}", options.out.display());
    Ok(())
}
