//! What the command prints and writes.

use std::fs;
use std::process::Output;

use super::*;

fn text(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Runs a command that must succeed; returns what it says.
fn said(mut command: Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    text(&done)
}

#[test]
fn the_command_writes_a_tuned_model_and_says_what_changed() {
    let folder = workplace();
    let arguments = "-o tuned.onnx -b 4 --steps 6 --augment none";
    let said_first = said(train_command(&folder, arguments));
    for part in [
        "24 training and 12 validation images",
        "step 6: top-1",
        "top-1",
        "wrote tuned.onnx",
    ] {
        assert!(said_first.contains(part), "{part} in {said_first}");
    }
    let file = |name: &str| fs::read(folder.path().join(name)).unwrap();
    // Weights of a checkpoint belong into the model that was trained.
    let last = "tuned.training/last.safetensors";
    said(bcosc(
        &folder,
        &format!("merge tuned.onnx {last} -o merged.onnx"),
    ));
    assert!(file("merged.onnx") == file("tuned.onnx"));
    said(bcosc(&folder, "extract tuned.onnx -o weights.safetensors"));
    let merge = "merge tuned.onnx weights.safetensors -o again.onnx";
    said(bcosc(&folder, merge));
    assert!(file("again.onnx") == file("tuned.onnx"));
}

/// What a command says when it fails.
fn failure(folder: &TempDir, changes: &str) -> String {
    let arguments = format!("-o tuned.onnx --steps 2 {changes}");
    let done = train_command(folder, &arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    assert!(!folder.path().join("tuned.onnx").exists());
    text(&done)
}

#[test]
fn errors_say_what_to_do() {
    let folder = workplace();
    for (changes, expected) in [
        (
            "-b 100",
            "the batch size is 100, but there are only 24 pictures",
        ),
        (
            "-b 4 --freeze nothing*",
            "no parameter matches the pattern `nothing*`",
        ),
        (
            "-b 4 --freeze *ones*",
            "no parameter matches the pattern `*ones*`",
        ),
        ("-b 4 --freeze *", "nothing is trained"),
        ("-b 4 --loss mse", "--loss mse requires --teacher"),
    ] {
        let found = failure(&folder, changes);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn class_folders_must_agree() {
    let folder = workplace();
    let class = |name: &str| folder.path().join("data").join(name);
    fs::rename(class("val/red"), class("val/rose")).unwrap();
    let found = failure(&folder, "-b 4");
    assert!(
        found.contains("val has no folder red, and") && found.contains("train has no folder rose"),
        "{found}"
    );
    for part in ["train", "val"] {
        fs::create_dir_all(class("one").join(part)).unwrap();
        fs::rename(
            class(part).join("blue"),
            class("one").join(part).join("blue"),
        )
        .unwrap();
    }
    fs::rename(folder.path().join("data"), folder.path().join("both")).unwrap();
    fs::rename(folder.path().join("both/one"), folder.path().join("data")).unwrap();
    let found = failure(&folder, "-b 4");
    assert!(
        found.contains("there is only one class folder, blue, but training requires two classes"),
        "{found}"
    );
}
