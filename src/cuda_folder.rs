//! A training step as a folder for GPUs that other programs can embed, with a program that runs it.

use std::fs;
use std::path::{Path, PathBuf};

use bcosc_autodiff::training::STEP;
use bcosc_engine::{EngineError, InputShapes, Precision};
use bcosc_engine_cuda::folder::{Files, KERNELS, PLAN, files};
use bcosc_engine_cuda::plan_in;
use bcosc_ir::Dim;
use bcosc_onnx::write_bytes;

use crate::{Error, RunError, TrainingStep, Weights};

/// The program that runs a folder, and the files that it needs beside `Cargo.toml`.
const PROGRAM: [(&str, &str); 6] = [
    (
        "src/main.rs",
        include_str!("../examples/finetune_cuda/main.rs"),
    ),
    (
        "src/convolution.rs",
        include_str!("../examples/finetune_cuda/convolution.rs"),
    ),
    (
        "src/gpu.rs",
        include_str!("../examples/finetune_cuda/gpu.rs"),
    ),
    (
        "src/npy.rs",
        include_str!("../examples/finetune_cuda/npy.rs"),
    ),
    (
        "src/plan.rs",
        include_str!("../examples/finetune_cuda/plan.rs"),
    ),
    (
        "src/product.rs",
        include_str!("../examples/finetune_cuda/product.rs"),
    ),
];

const MANIFEST: &str = r#"[package]
name = "finetune_cuda"
version = "0.1.0"
edition = "2024"

[dependencies]
cudarc = { version = "0.19.5", default-features = false, features = ["std", "dynamic-loading", "driver", "nvrtc", "cublaslt", "cudnn-09010", "cuda-13000"] }
libloading = "0.9"
safetensors = "0.8"
serde_json = "1"
"#;

/// The path of the folder for GPUs of a model: `net.cuda` for `net.onnx`.
pub fn cuda_path(model: &Path) -> PathBuf {
    model.with_extension("cuda")
}

/// Writes a training step for batches of `batch` images, in a precision, as a folder: kernels, plan, weights, and a program that runs steps.
/// The step must keep gradients whole
/// ([`StepOptions::whole_gradients`](bcosc_autodiff::training::StepOptions::whole_gradients)).
///
/// # Errors
/// [`Error::Run`] if an operator has no kernel, or a size other than the number of images is open; [`Error::Write`] if a file
/// cannot be written.
pub fn write_cuda_folder(
    step: &TrainingStep,
    batch: u64,
    precision: Precision,
    folder: &Path,
) -> Result<(), Error> {
    let fail = |source: EngineError| Error::Run {
        what: "the training step".to_owned(),
        source: RunError::Engine(source),
    };
    let shapes = shapes(step, batch).map_err(fail)?;
    let planned = plan_in(&step.model, &shapes, precision).map_err(fail)?;
    let Files {
        kernels,
        plan,
        constants,
    } = files(planned).map_err(|error| Error::encode("JSON", &error))?;
    let constants: Weights = constants.into_iter().collect();
    for part in [folder, &folder.join("src")] {
        fs::create_dir_all(part).map_err(|source| Error::File {
            path: part.to_owned(),
            source,
        })?;
    }
    constants.write(&folder.join("constants.safetensors"))?;
    step.initial().write(&folder.join("state.safetensors"))?;
    for (name, text) in [
        (KERNELS, kernels.as_str()),
        ("Cargo.toml", MANIFEST),
        ("README.md", &readme(step, batch)),
    ]
    .into_iter()
    .chain(PROGRAM)
    {
        write_bytes(&folder.join(name), text.as_bytes())?;
    }
    // Last, so that a folder with a plan is complete.
    write_bytes(&folder.join(PLAN), plan.as_bytes())?;
    Ok(())
}

/// The shapes of a step's inputs. The first size of an input that is no state may be open: it is the number of images.
fn shapes(step: &TrainingStep, batch: u64) -> Result<InputShapes, EngineError> {
    let graph = &step.model.graph;
    let inputs = graph.inputs().into_iter().map(|value| {
        let name = graph.value_name(value).to_owned();
        let dims = graph.value_type(value).and_then(|known| known.shape);
        let dims = dims.ok_or_else(|| EngineError::UntypedInput(name.clone()))?;
        let sizes = dims.iter().enumerate().map(|(axis, dim)| match dim {
            Dim::Known(size) => Ok(*size),
            _ if axis == 0 => Ok(batch),
            _ => Err(EngineError::Shapes {
                place: format!("input `{name}`"),
                reason: format!("its size {axis} is open; --input-shapes fixes it"),
            }),
        });
        let sizes = sizes.collect::<Result<_, _>>()?;
        Ok((name, sizes))
    });
    inputs.collect()
}

fn readme(step: &TrainingStep, batch: u64) -> String {
    let graph = &step.model.graph;
    let images = graph.inputs().first().map(|value| graph.value_name(*value));
    format!(
        "# A training step for NVIDIA GPUs\n\n\
         Written by bcosc {version}. One run is one step of training on {batch} images.\n\n\
         | file | content |\n|---|---|\n\
         | `plan.json` | inputs, outputs, constants and buffers by number; `prepare` runs once, `steps` in every run |\n\
         | `kernels.cu` | CUDA C, for NVRTC or nvcc; every launch has blocks of 256 threads, and a pointer for each buffer of its \
         `arguments`; the first `table` of a kernel that has one are a structure, passed by value |\n\
         | `constants.safetensors` | what the plan's `constants` hold |\n\
         | `state.safetensors` | what its inputs hold at first: parameters, statistics, and what the optimiser keeps |\n\
         | `src/`, `Cargo.toml` | a program that runs steps: `cargo run --release -- --help` |\n\n\
         Inputs besides the state are `{images}`, `targets`, `learning_rate` and `{STEP}`, which counts from 1. The buffer of an \
         input that `state` pairs with an output holds the next value after a run. A buffer's `place` is memory of its own \
         (`input`, `constant`), an offset in bytes into one of two blocks whose sizes are `arena` and `prepared`, or that of \
         another buffer (`within`). Convolutions and products give sizes and strides in elements, channels first whatever the \
         `layout` in memory is. `precision` is how they round: `fp32` not at all, `tf32` their factors, `bf16` what they read and \
         write. Parameters are in single precision. `version` changes with what a program must know to run a plan.\n",
        version = env!("CARGO_PKG_VERSION"),
        images = images.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bcosc_autodiff::training::StepOptions;
    use serde_json::Value as Json;

    use super::*;
    use crate::{TrainingOptions, training_step};

    #[test]
    fn a_folder_holds_all_that_its_plan_names() {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainingOptions {
            step: StepOptions {
                whole_gradients: true,
                ..StepOptions::default()
            },
            ..TrainingOptions::default()
        };
        let net = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/resnet_tiny/model.onnx");
        let step = training_step(net, &options).unwrap();
        write_cuda_folder(&step, 4, Precision::Bf16, folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let plan: Json = serde_json::from_str(&read("plan.json")).unwrap();
        let runs = format!("const VERSION: u64 = {};", plan["version"]);
        assert!(read("src/plan.rs").contains(&runs), "{runs}");
        let kernels = read("kernels.cu");
        let names = |list: &str| -> BTreeSet<String> {
            let list = plan[list].as_array().unwrap().iter();
            list.map(|entry| entry["name"].as_str().unwrap().to_owned())
                .collect()
        };
        for kernel in names("kernels") {
            assert!(kernels.contains(&format!("void {kernel}(")), "{kernel}");
        }
        assert!(
            plan["kernels"]
                .as_array()
                .unwrap()
                .iter()
                .all(|k| k["text"].is_null())
        );
        let stored = |name: &str| -> BTreeSet<String> {
            let weights = Weights::read(&folder.path().join(name)).unwrap();
            weights.iter().map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(stored("constants.safetensors"), names("constants"));
        let state = stored("state.safetensors");
        let others: BTreeSet<String> = names("inputs").difference(&state).cloned().collect();
        let image = plan["inputs"][0]["name"].as_str().unwrap().to_owned();
        let expected = [image.as_str(), "targets", "learning_rate", "step"];
        assert_eq!(others, expected.map(str::to_owned).into());
        assert!(names("outputs").contains("loss"));
        assert_eq!(plan["inputs"][0]["dims"][0], 4);
        assert_eq!(plan["precision"], "bf16");
        let convolutions = plan["steps"].as_array().unwrap().iter();
        let mut convolutions = convolutions.filter_map(|step| step.get("convolution"));
        let last = |step: &Json| step["convolution"]["layout"] == "channels-last";
        assert!(convolutions.next().is_some_and(last) && convolutions.all(last));
        for file in ["README.md", "Cargo.toml", "src/main.rs", "src/plan.rs"] {
            assert!(!read(file).is_empty());
        }
    }
}
