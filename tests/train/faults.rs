//! Runs that are killed, run out of disk, or meet files that cannot be read.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use bcosc::Weights;
use bcosc::autodiff::training::StateKind;
use bcosc_ir::Tensor;

use super::*;

/// Half of a file.
fn truncate(path: &Path) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() / 2]).unwrap();
}

/// Stops a run after a step.
fn interrupted(folder: &TempDir, options: &TrainOptions, after: u64) {
    let net = folder.path().join("net.onnx");
    let stopped = train(net, options, &mut |event| match event {
        TrainEvent::Step { step, .. } if step == after => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert_eq!(stopped.unwrap().steps, after);
}

#[test]
fn a_partial_checkpoint_is_not_used() {
    let folder = workplace();
    let whole = run(&folder, &options(&folder, "whole")).unwrap();
    let parts = TrainOptions {
        resume: true,
        ..options(&folder, "parts")
    };
    interrupted(&folder, &parts, 8);
    let partial = parts.work_dir.join("last.partial");
    fs::copy(parts.work_dir.join("last.safetensors"), &partial).unwrap();
    truncate(&partial);
    let rest = run(&folder, &parts).unwrap();
    assert!(bytes(&rest) == bytes(&whole));
    assert!(!partial.exists());
}

/// Some runs are killed while they write a checkpoint, others between.
#[test]
fn killed_runs_go_on_to_the_same_bytes() {
    let folder = workplace();
    let arguments = "-b 4 --epochs 12 --augment shift --sheet 0 --val-images 3";
    let whole = format!("{arguments} -o whole.onnx");
    assert!(
        train_command(&folder, &whole)
            .output()
            .unwrap()
            .status
            .success()
    );
    let work = folder.path().join("parts.training");
    let (partial, last) = (work.join("last.partial"), work.join("last.safetensors"));
    let lines = || fs::read_to_string(work.join(METRICS)).map_or(0, |text| text.lines().count());
    let parts = format!("{arguments} -o parts.onnx --resume --quiet");
    for kill in 0..4 {
        let mut child = train_command(&folder, &parts).spawn().unwrap();
        let before = lines();
        let due = || match kill % 2 {
            0 => partial.exists(),
            _ => lines() > before + 9,
        };
        while child.try_wait().unwrap().is_none() && !due() {
            sleep(Duration::from_micros(50));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if last.exists() {
            Weights::read(&last).unwrap();
        }
    }
    let rest = train_command(&folder, &parts).output().unwrap();
    assert!(
        rest.status.success(),
        "{}",
        String::from_utf8_lossy(&rest.stderr)
    );
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(file("parts.onnx") == file("whole.onnx"));
}

/// A limit on the size of files takes the place of a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let folder = workplace();
    let arguments = "-o tuned.onnx -b 4 --steps 6 --augment none --sheet 0";
    let done = train_command(&folder, arguments).output().unwrap();
    assert!(done.status.success());
    let last = folder.path().join("tuned.training/last.safetensors");
    let before = fs::read(&last).unwrap();
    fs::remove_file(folder.path().join("tuned.onnx")).unwrap();
    let command = train_command(&folder, arguments);
    let mut limited = Command::new("sh");
    limited
        .current_dir(folder.path())
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    let done = limited.output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot write") && text.contains("best.safetensors"),
        "{text}"
    );
    assert!(fs::read(&last).unwrap() == before);
    let left = fs::read_dir(last.parent().unwrap()).unwrap();
    let left: Vec<PathBuf> = left.map(|entry| entry.unwrap().path()).collect();
    let is_partial = |path: &PathBuf| path.extension().is_some_and(|e| e == "partial");
    assert!(!left.iter().any(is_partial), "{left:?}");
    assert!(!folder.path().join("tuned.onnx").exists());
}

#[test]
fn one_unreadable_image_among_ten_thousand_is_named() {
    let folder = workplace();
    let data = folder.path().join("data");
    for class in CLASSES {
        let from = data.join(format!("train/{class}/0.png"));
        for index in 8..3334 {
            fs::hard_link(&from, data.join(format!("train/{class}/{index}.png"))).unwrap();
        }
    }
    let bad = ["train/green/7.png", "val/red/1.png"].map(|path| data.join(path));
    truncate(&bad[0]);
    let once = TrainOptions {
        epochs: 1,
        batch_size: 1250,
        eval_every: EvaluateEvery::Epochs(1),
        ..options(&folder, "run")
    };
    let fails = |expected: &Path| match run(&folder, &once).unwrap_err() {
        Error::Image { path, .. } => assert_eq!(path, expected),
        other => panic!("{other}"),
    };
    fails(&bad[0]);
    truncate(&bad[1]);
    fails(&bad[1]);
    let skipping = TrainOptions {
        unreadable: Unreadable::Skip,
        sheet: 12,
        ..once
    };
    let trained = run(&folder, &skipping).unwrap();
    assert_eq!((trained.steps, trained.skipped), (8, BTreeSet::from(bad)));
}

#[test]
fn a_run_that_diverges_leaves_its_checkpoint() {
    let folder = workplace();
    let wild = TrainOptions {
        rate: 1e30,
        ..options(&folder, "run")
    };
    match run(&folder, &wild).unwrap_err() {
        Error::Diverged { checkpoint, .. } => assert_eq!(checkpoint, None),
        other => panic!("{other}"),
    }
    let parts = TrainOptions {
        resume: true,
        ..options(&folder, "parts")
    };
    interrupted(&folder, &parts, 8);
    let last = parts.work_dir.join("last.safetensors");
    let mut weights = Weights::read(&last).unwrap();
    let huge = weights.get("scores.w").unwrap().dims();
    let huge = Tensor::f32s(&huge, vec![1e30; 3 * 8 * 3 * 3]);
    weights.insert("scores.w", StateKind::Parameter, huge);
    weights.write(&last).unwrap();
    let before = fs::read(&last).unwrap();
    match run(&folder, &parts).unwrap_err() {
        Error::Diverged {
            step, checkpoint, ..
        } => assert_eq!((step, checkpoint), (9, Some(last.clone()))),
        other => panic!("{other}"),
    }
    assert!(fs::read(&last).unwrap() == before);
}
