//! A plan as files that other programs can run: the kernels as one readable text, the plan as JSON, and the constants by name.
//!
//! `examples/finetune_cuda` is such a program.

use std::collections::BTreeSet;

use bcosc_ir::Tensor;

use crate::kernels::PRELUDE;
use crate::plan::Planned;

/// The name of the file with the kernels.
pub const KERNELS: &str = "kernels.cu";
/// The name of the file with the plan.
pub const PLAN: &str = "plan.json";

/// What the files hold.
#[derive(Clone, Debug)]
pub struct Files {
    /// All kernels, with what they share before them.
    pub kernels: String,
    /// The plan as JSON. Kernels have no text here.
    pub plan: String,
    /// The constants, by the names that the plan has for them, which no two have in common.
    pub constants: Vec<(String, Tensor)>,
}

/// The files of a plan.
///
/// # Errors
/// If JSON cannot be written.
pub fn files(planned: Planned) -> serde_json::Result<Files> {
    let Planned {
        mut plan,
        constants,
    } = planned;
    let mut kernels = PRELUDE.to_owned();
    for kernel in &mut plan.kernels {
        kernels.push('\n');
        kernels.push_str(&kernel.text);
        kernel.text.clear();
    }
    let mut taken = BTreeSet::new();
    for binding in &mut plan.constants {
        let mut name = binding.name.clone();
        for count in 2.. {
            if taken.insert(name.clone()) {
                break;
            }
            name = format!("{}_{count}", binding.name);
        }
        binding.name = name;
    }
    let names = plan.constants.iter().map(|binding| binding.name.clone());
    Ok(Files {
        kernels,
        constants: names.zip(constants).collect(),
        plan: plan.to_json()?,
    })
}
