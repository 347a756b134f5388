//! Explanation graphs from the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name]
        .iter()
        .collect()
}

fn bcosc(args: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
    command.env_remove("RUST_LOG").args(args).output().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_conversion_emits_the_explanation_graph_beside_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let (out, report) = (folder.path().join("net.onnx"), folder.path().join("r.json"));
    let [o, emit, explain, r] = ["-o", "--emit", "explain", "--report"].map(Path::new);
    let model = fixture("resnet_tiny/model.onnx");
    let done = bcosc(&[&model, o, &out, emit, explain, r, &report]);
    assert!(done.status.success());
    assert_eq!(
        files(folder.path()),
        ["net.explain.onnx", "net.onnx", "r.json"]
    );
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("wrote explanation graph"), "{text}");
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("net.explain.onnx"), "{report}");
    // The result itself can be explained later, to the same graph.
    let again = folder.path().join("again.onnx");
    let done = bcosc(&[Path::new("explain-graph"), &out, o, &again]);
    assert!(done.status.success());
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("net.explain.onnx") == bytes("again.onnx"));
}

#[test]
fn what_cannot_be_explained_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("net.onnx");
    let model = fixture("README.md");
    let done = bcosc(&[Path::new("explain-graph"), &model, Path::new("-o"), &out]);
    assert_eq!(done.status.code(), Some(1));
    assert!(files(folder.path()).is_empty());
}
