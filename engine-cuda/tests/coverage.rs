//! Plans of the golden networks are complete.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use bcosc_engine_cuda::plan;
use bcosc_engine_cuda::plan::{Plan, Step};
use common::{Graph, NETWORKS, graph, shapes};

fn figures(plan: &Plan) -> String {
    let count = |f: fn(&Step) -> bool| plan.steps.iter().filter(|step| f(step)).count();
    format!(
        "{} launches of {} kernels, {} convolutions, {} products, {} copies; {} prepared; {} in place of {}; arena {} KiB",
        count(|s| matches!(s, Step::Launch { .. })),
        plan.kernels.len(),
        count(|s| matches!(s, Step::Convolution { .. })),
        count(|s| matches!(s, Step::Product { .. })),
        count(|s| matches!(s, Step::Copy { .. })),
        plan.prepare.len(),
        plan.state.len() - count(|s| matches!(s, Step::Copy { .. })),
        plan.state.len(),
        plan.arena / 1024,
    )
}

#[test]
fn golden_networks_have_complete_plans() {
    let mut text = String::new();
    let mut problems = Vec::new();
    for network in NETWORKS {
        for kind in Graph::ALL {
            let (model, _) = graph(network, kind);
            match plan(&model, &shapes(&model, 2, 32)) {
                Ok(planned) => {
                    let _ = writeln!(text, "{network} {kind:?}: {}", figures(&planned.plan));
                    sound(&planned.plan);
                }
                Err(error) => problems.push(format!("{network} {kind:?}: {error}")),
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    eprintln!("{text}");
}

/// Every buffer is written before it is read, and no step writes over what a later one reads.
fn sound(plan: &Plan) {
    let given = plan
        .inputs
        .iter()
        .chain(&plan.constants)
        .map(|binding| binding.buffer);
    let mut written: BTreeSet<usize> = given.collect();
    for step in plan.prepare.iter().chain(&plan.steps) {
        for read in step.reads(&plan.kernels) {
            assert!(written.contains(&read), "{step:?} reads {read}");
        }
        written.extend(step.writes(&plan.kernels));
    }
    for output in &plan.outputs {
        assert!(
            written.contains(&output.buffer),
            "{} is not computed",
            output.name
        );
    }
}
