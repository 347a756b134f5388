//! The command line.

use super::*;

fn bcosc(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bcosc"))
        .current_dir(folder.path())
        .args(arguments)
        .output()
        .unwrap()
}

const NORMALIZATION: [&str; 4] = ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"];

#[test]
fn the_command_says_what_it_does_and_what_changed() {
    let folder = workplace();
    let start = ["align", "net.onnx", "--data", "data"];
    let plan = bcosc(
        &folder,
        &[&start[..], &NORMALIZATION, &["--dry-run"]].concat(),
    );
    let plan = String::from_utf8(plan.stdout).unwrap();
    insta::assert_snapshot!(plan, @r"
    phase      layers  tensors  steps  compared at
    segment 1  3       6        80     block
    segment 2  1       1        80     output
    ");

    let rest = [
        "-o",
        "out.onnx",
        "--steps",
        "4",
        "--batch-size",
        "8",
        "--engine",
        "tract",
    ];
    let done = bcosc(&folder, &[&start[..], &NORMALIZATION, &rest].concat());
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    for text in [
        "32 training images, 4 held out; 8 in a step; 2 phases",
        "segment 1: error ",
        "4 steps in ",
        "original  converted  aligned",
        "agreement",
        "top-1",
        "wrote out.onnx",
        "out.alignment",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    assert!(folder.path().join("out.onnx").exists());
}

#[test]
fn a_conversion_can_end_with_the_alignment() {
    let folder = workplace();
    let start = ["net.onnx", "-o", "short.onnx", "--align", "data"];
    let short = bcosc(&folder, &[&start[..], &NORMALIZATION].concat());
    let said = String::from_utf8(short.stderr).unwrap();
    assert!(short.status.success(), "{said}");
    let start = ["align", "net.onnx", "-o", "long.onnx", "--data", "data"];
    bcosc(&folder, &[&start[..], &NORMALIZATION].concat());
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("short.onnx") == read("long.onnx"));
}

#[test]
fn errors_say_what_to_do() {
    let folder = workplace();
    let failure = |arguments: &[&str]| {
        let start = ["align", "net.onnx", "--data", "data", "-o", "out.onnx"];
        let found = bcosc(&folder, &[&start[..], arguments].concat());
        assert!(!found.status.success());
        assert!(!folder.path().join("out.onnx").exists());
        String::from_utf8(found.stderr).unwrap()
    };
    let text = failure(&[&NORMALIZATION[..], &["--b-from", "1", "--b-steps", "5"]].concat());
    assert!(text.contains("--method grow"), "{text}");
    let text = failure(&[&NORMALIZATION[..], &["--teacher", "data/0/0.png"]].concat());
    assert!(text.contains("0.png"), "{text}");
    let text = failure(&["--budget", "soon"]);
    assert!(text.contains("10min"), "{text}");
    fs::write(folder.path().join("data/1/broken.png"), b"no picture").unwrap();
    let text = failure(&NORMALIZATION);
    assert!(text.contains("broken.png"), "{text}");
    let start = [
        "align",
        "net.onnx",
        "--data",
        "data",
        "-o",
        "out.onnx",
        "--steps",
        "2",
        "--engine",
        "tract",
        "--skip-unreadable",
    ];
    let done = bcosc(&folder, &[&start[..], &NORMALIZATION].concat());
    let text = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && text.contains("broken.png"),
        "{text}"
    );
}
