//! `bcosc explain`: files, output and errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bcosc::passes::InputContract;
use bcosc::{Options, Preset, convert};
use safetensors::SafeTensors;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name]
        .iter()
        .collect()
}

/// A folder with a B-cos model that takes raw pixels, and pictures for it.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    options.settings.input = InputContract::AddInverse;
    options.settings.normalization = Some(Preset::Imagenet.normalization());
    options.settings.absorb_normalization = true;
    let mut converted = convert(fixture("resnet_tiny/model.onnx"), &options).unwrap();
    let model = folder.path().join("net.onnx");
    converted.write(model, &Default::default()).unwrap();
    for (name, shift) in [("a", 0), ("b/c", 90)] {
        let path = folder.path().join("pictures").join(format!("{name}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let paint = |x: u32, y: u32| {
            image::Rgb([x * 3 + shift, (x * y) % 256, 255 - y * 2].map(|v| v as u8))
        };
        image::RgbImage::from_fn(80, 70, paint).save(path).unwrap();
    }
    folder
}

fn explain(folder: &TempDir, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
    let command = command.env_remove("RUST_LOG").current_dir(folder.path());
    command.arg("explain").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// All files of a folder and below, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true => names.extend(files(&path).into_iter().map(|f| format!("{name}/{f}"))),
            false => names.push(name),
        }
    }
    names.sort();
    names
}

#[test]
fn a_folder_is_explained_twice_with_the_same_bytes() {
    let folder = workplace();
    let run = |out: &str| {
        let sheet = format!("{out}/sheet.html");
        let args = [
            "net.onnx", "pictures", "-o", out, "--raw", "--sheet", &sheet,
        ];
        fs::create_dir(folder.path().join(out)).unwrap();
        let done = explain(&folder, &args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    let printed = run("one");
    assert!(printed.contains("b/c.png"), "{printed}");
    assert!(printed.contains("wrote 10 files to one"), "{printed}");
    run("two");
    let [one, two] = ["one", "two"].map(|out| folder.path().join(out));
    let expected = [
        "a.contributions.png",
        "a.explanation.png",
        "a.npz",
        "a.overlay.png",
        "a.safetensors",
        "b/c.contributions.png",
        "b/c.explanation.png",
        "b/c.npz",
        "b/c.overlay.png",
        "b/c.safetensors",
        "sheet.html",
    ];
    assert_eq!(files(&one), expected);
    for file in expected {
        let [one, two] = [&one, &two].map(|out| fs::read(out.join(file)).unwrap());
        assert!(one == two, "{file}");
    }
    let picture = image::open(one.join("a.explanation.png")).unwrap();
    assert_eq!(picture.color(), image::ColorType::Rgba8);
    assert_eq!((picture.width(), picture.height()), (64, 64));
}

#[test]
fn a_class_alone_is_its_row_among_all() {
    let folder = workplace();
    let run = |choice: [&str; 2], out: &str| {
        let [flag, value] = choice;
        let args = [
            "net.onnx",
            "pictures/a.png",
            "-o",
            out,
            "--raw=safetensors",
            flag,
            value,
        ];
        let done = explain(&folder, &args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        fs::read(folder.path().join(out).join("a.safetensors")).unwrap()
    };
    let [all, one] = [run(["--top", "10"], "all"), run(["--class", "7"], "one")];
    let [all, one] = [&all, &one].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let classes = all.tensor("class").unwrap().data().to_vec();
    let row = classes
        .chunks(8)
        .position(|c| c == 7i64.to_le_bytes())
        .unwrap();
    for name in ["weights", "contributions", "logit", "residual"] {
        let [all, one] = [&all, &one].map(|file| file.tensor(name).unwrap().data().to_vec());
        assert!(one.iter().any(|byte| *byte != 0));
        assert!(all.chunks(one.len()).nth(row).unwrap() == one, "{name}");
    }
    // Each class has pictures of its own.
    assert_eq!(files(&folder.path().join("all")).len(), 3 * 10 + 1);
}

#[test]
fn contributions_and_bias_add_up_to_the_logit() {
    let folder = workplace();
    let done = explain(&folder, &["net.onnx", "pictures", "--report", "r.json"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report = fs::read_to_string(folder.path().join("r.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let images = report["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    for image in images {
        let of = |key: &str| image["explanations"][0][key].as_f64().unwrap();
        let plain = of("logit") - of("logit_bias");
        assert!(plain != 0.0);
        assert!((of("contribution") + of("residual") - plain).abs() < 1e-12);
        assert!(of("residual").abs() <= 1e-4 * plain.abs() + 1e-7, "{image}");
    }
}

#[test]
fn an_explanation_graph_explains_as_its_model_does() {
    let folder = workplace();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
    let command = command.current_dir(folder.path());
    let graph = ["explain-graph", "net.onnx", "-o", "net.explain.onnx"];
    assert!(command.args(graph).output().unwrap().status.success());
    for (model, out) in [("net.onnx", "a"), ("net.explain.onnx", "b")] {
        let done = explain(&folder, &[model, "pictures/a.png", "-o", out, "--raw=npz"]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    let [a, b] = ["a", "b"].map(|out| fs::read(folder.path().join(out).join("a.npz")).unwrap());
    assert!(a == b);
}

#[test]
fn a_bad_picture_does_not_stop_the_others() {
    let folder = workplace();
    let whole = fs::read(folder.path().join("pictures/a.png")).unwrap();
    fs::write(
        folder.path().join("pictures/0.png"),
        &whole[..whole.len() / 2],
    )
    .unwrap();
    let done = explain(&folder, &["net.onnx", "pictures", "-o", "out"]);
    assert_eq!(done.status.code(), Some(1));
    let errors = text(&done.stderr);
    assert!(errors.contains("0.png"), "{errors}");
    assert!(errors.contains("1 of 3 pictures"), "{errors}");
    assert_eq!(files(&folder.path().join("out")).len(), 6);
}

#[test]
fn what_cannot_be_done_is_said_and_nothing_is_written() {
    let folder = workplace();
    let plain = fixture("resnet_tiny/model.folded.onnx");
    let plain = plain.to_str().unwrap();
    let labels = fixture("README.md");
    let labels = labels.to_str().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (
            &["net.onnx", "pictures", "--class", "10"],
            "there is no class 10",
        ),
        (
            &["net.onnx", "pictures", "--class", "cat"],
            "class names require --labels",
        ),
        (
            &["net.onnx", "pictures", "--top", "11"],
            "cannot explain 11 classes",
        ),
        (
            &["net.onnx", "pictures", "--labels", labels],
            "the model has 10 classes",
        ),
        (&["net.onnx", "."], "have the same name"),
        (&[plain, "pictures"], "--normalization imagenet"),
        (&["pictures/a.png", "pictures"], "a.png"),
    ];
    fs::create_dir_all(folder.path().join("other")).unwrap();
    fs::copy(
        folder.path().join("pictures/a.png"),
        folder.path().join("other/a.png"),
    )
    .unwrap();
    for (args, expected) in cases {
        let args: Vec<&str> = match args {
            [model, "."] => vec![*model, "pictures", "other", "-o", "out"],
            _ => args.iter().copied().chain(["-o", "out"]).collect(),
        };
        let done = explain(&folder, &args);
        assert_eq!(done.status.code(), Some(1), "{args:?}");
        let errors = text(&done.stderr);
        assert!(errors.contains(expected), "{errors}");
        assert!(files(&folder.path().join("out")).is_empty(), "{args:?}");
    }
}

#[test]
fn a_sheet_can_be_all_that_is_wanted() {
    let folder = workplace();
    let done = explain(
        &folder,
        &["net.onnx", "pictures", "--sheet", "sheet.png", "-q"],
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(done.stdout.is_empty());
    let sheet = image::open(folder.path().join("sheet.png")).unwrap();
    assert!(sheet.width() > 3 * 70 && sheet.height() > 2 * 70);
    let done = explain(&folder, &["net.onnx", "pictures", "--sheet", "sheet.gif"]);
    assert_eq!(done.status.code(), Some(2));
}
