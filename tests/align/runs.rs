//! The same result however a run goes: workers, interruptions, memory and budgets.

use super::*;

#[test]
fn the_result_depends_on_the_seed_and_not_on_workers() {
    let folder = workplace();
    let one = |name: &str, workers, seed| {
        let options = AlignOptions {
            workers,
            seed,
            ..options(&folder, name, Method::BlocksJoint)
        };
        bytes(&run(&folder, &options).unwrap())
    };
    let first = one("a", 2, 1);
    assert!(first == one("b", 0, 1));
    assert!(first != one("c", 2, 2));
}

#[test]
fn an_interrupted_alignment_goes_on_to_the_same_bytes() {
    let folder = workplace();
    let whole = run(&folder, &options(&folder, "whole", Method::BlocksJoint)).unwrap();
    let whole = bytes(&whole);
    // In the first segment, at its last step, in the second, and in the joint part.
    for stop_at in [5, 20, 33, 50] {
        let name = format!("stopped{stop_at}");
        let mut options = options(&folder, &name, Method::BlocksJoint);
        stop(&folder, &options, stop_at);
        options.resume = true;
        let resumed = run(&folder, &options).unwrap();
        assert!(bytes(&resumed) == whole, "stopped at {stop_at}");
        let lines = fs::read_to_string(options.work_dir.join(METRICS)).unwrap();
        assert_eq!(lines.lines().count(), 40 + 30 + 3 + 2);

        options.seed = 7;
        let error = run(&folder, &options).unwrap_err().to_string();
        assert!(error.contains("--seed = 1, not 7"), "{error}");
    }
}

#[test]
fn features_can_be_in_a_file() {
    let folder = workplace();
    let one = |name: &str, feature_memory| {
        let options = AlignOptions {
            // An epoch, so that the memory does not decide on the images.
            block_steps: 2,
            feature_memory,
            ..options(&folder, name, Method::Blocks)
        };
        bytes(&run(&folder, &options).unwrap())
    };
    assert!(one("memory", 1 << 30) == one("file", 0));
    // The first images fit, and what follows does not.
    assert!(one("both", 50_000) == one("file", 0));
}

#[test]
fn a_budget_sets_the_steps() {
    let folder = workplace();
    let options = AlignOptions {
        budget: Some(std::time::Duration::from_millis(1)),
        ..options(&folder, "run", Method::Blocks)
    };
    let aligned = run(&folder, &options).unwrap();
    assert!(aligned.phases.iter().all(|phase| phase.steps == 8));
}

#[test]
fn a_budget_is_measured_again_after_an_interruption() {
    let folder = workplace();
    let mut options = AlignOptions {
        budget: Some(std::time::Duration::from_millis(500)),
        ..options(&folder, "run", Method::Blocks)
    };
    // At the step before the number of steps is decided.
    let mut steps = 0;
    let stopped = align(folder.path().join("net.onnx"), &options, &mut |event| {
        steps += u64::from(matches!(event, AlignEvent::Step { .. }));
        match steps < 3 {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    assert!(stopped.unwrap().interrupted);
    options.resume = true;
    // A step takes a millisecond or more.
    let resumed = run(&folder, &options).unwrap();
    assert!(resumed.phases.iter().all(|phase| phase.steps < 1000));
}
