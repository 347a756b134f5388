//! `tests/device/run.sh` with programs that pretend: what it does without a GPU, and with checks that fail.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder of programs, each with a line of shell of its own.
fn binaries(throughput: &str, device: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, line) in [
        ("bcosc", "echo bcosc 0.0.0"),
        ("throughput", throughput),
        ("device", device),
        ("training", "exit 0"),
        ("golden", "exit 0"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

fn run(binaries: &Path, out: &Path, options: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/run.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(binaries).arg(out).args(options);
    command.output().unwrap()
}

fn report(out: &Path) -> Value {
    let text = fs::read_to_string(out.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn without_a_gpu_it_says_so_and_still_writes_a_report() {
    let found = binaries(
        "echo 'CUDA is not available: there is no libcuda.so.1' >&2; exit 3",
        "exit 1",
    );
    let out = tempfile::tempdir().unwrap();
    let done = run(found.path(), out.path(), &[]);
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("no GPU") && said.contains("libcuda.so.1"),
        "{said}"
    );
    let report = report(out.path());
    assert_eq!(report["bcosc"], "bcosc 0.0.0");
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 1);
    assert_eq!(checks[0]["check"], "device");
    assert_eq!(checks[0]["status"], "failed");
}

#[test]
fn a_check_that_fails_or_hangs_does_not_stop_the_others() {
    let found = binaries(
        r#"echo 'figure: {"milliseconds": 1.5}'; echo other; echo 'figure: {"milliseconds": 2}'"#,
        r#"case "$*" in *state_stays*) sleep 60;; esac; printf '%s\n' 'wrong: "a\b"'; exit 7"#,
    );
    let out = tempfile::tempdir().unwrap();
    let done = run(found.path(), out.path(), &["--limit", "30"]);
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let report = report(out.path());
    let check = |name: &str| {
        let checks = report["checks"].as_array().unwrap().iter();
        checks
            .clone()
            .find(|check| check["check"] == name)
            .unwrap()
            .clone()
    };
    let layers = check("layers");
    assert_eq!(layers["status"], "passed");
    assert_eq!(layers["figures"].as_array().unwrap().len(), 2);
    assert_eq!(layers["figures"][0]["milliseconds"], 1.5);
    let golden = check("golden");
    assert_eq!(golden["status"], "failed");
    let reason = golden["reason"].as_str().unwrap();
    assert!(
        reason.contains("exit status 7: wrong: \"a\\b\""),
        "{reason}"
    );
    assert_eq!(check("published")["status"], "passed");
    assert_eq!(check("training")["status"], "skipped");
    assert_eq!(check("throughput")["status"], "skipped");
}

#[test]
fn what_is_out_of_time_is_stopped() {
    let found = binaries("sleep 60", "exit 0");
    let out = tempfile::tempdir().unwrap();
    let done = run(
        found.path(),
        out.path(),
        &["--limit", "4", "--only", "layers"],
    );
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let checks = &report(out.path())["checks"];
    assert_eq!(checks.as_array().unwrap().len(), 1);
    assert_eq!(checks[0]["status"], "timeout");
}

#[test]
fn usage_is_explained() {
    let out = tempfile::tempdir().unwrap();
    let none = run(Path::new("/nowhere"), out.path(), &[]);
    assert_eq!(none.status.code(), Some(2));
    let found = binaries("exit 0", "exit 0");
    let wrong = run(found.path(), out.path(), &["--frobnicate", "1"]);
    assert_eq!(wrong.status.code(), Some(2));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/run.sh");
    let help = Command::new("sh")
        .arg(script)
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("--networks") && help.contains("Exit status"),
        "{help}"
    );
}
