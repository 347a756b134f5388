//! `bcosc eval`: metrics, output and errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The classes of the fixture, in the order of its logits.
const COLOURS: [(&str, [u8; 3]); 4] = [
    ("red", [255, 0, 0]),
    ("green", [0, 255, 0]),
    ("blue", [0, 0, 255]),
    ("dark", [0, 0, 0]),
];

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name]
        .iter()
        .collect()
}

fn paint(path: &Path, side: u32, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let picture = image::RgbImage::from_pixel(side, side, image::Rgb(colour));
    picture.save(path).unwrap();
}

/// The model, three pictures of each of its classes, and a red one among the green.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(
        fixture("colours/model.onnx"),
        folder.path().join("net.onnx"),
    )
    .unwrap();
    let data = folder.path().join("data");
    for (name, colour) in COLOURS {
        for i in 0..3 {
            // Less bright, less confident.
            let colour = colour.map(|v| v - v.min(9 * i));
            paint(&data.join(format!("{name}/{i}.png")), 8, colour);
        }
    }
    paint(&data.join("green/wrong.png"), 8, [255, 0, 0]);
    fs::create_dir(data.join(".hidden")).unwrap();
    fs::write(folder.path().join("labels.txt"), "red\ngreen\nblue\ndark\n").unwrap();
    folder
}

fn eval(folder: &TempDir, args: &[&str], threads: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
    command
        .current_dir(folder.path())
        .env_remove("RUST_LOG")
        .env("RAYON_NUM_THREADS", threads)
        .args([
            "eval",
            "net.onnx",
            "--data",
            "data",
            "--labels",
            "labels.txt",
        ])
        .args(args);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn files(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn near(value: &Value, expected: f64) {
    let found = value.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

#[test]
fn figures_are_those_worked_out_by_hand() {
    let folder = workplace();
    let all = [
        "--gridpg",
        "--smooth",
        "0",
        "--grids",
        "2",
        "--perturb",
        "--completeness",
        "--report",
        "one.json",
        "--plot",
        "plot.svg",
        "--compare",
        "net.onnx",
    ];
    let done = eval(&folder, &all, "1");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report = fs::read_to_string(folder.path().join("one.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["folders"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&report["images"], &report["seed"]),
        (&13.into(), &0.into())
    );
    let model = &report["models"][0];
    assert_eq!(model, &{
        let mut other = report["models"][1].clone();
        other["name"] = model["name"].clone();
        other
    });
    near(&model["top1"], 12.0 / 13.0);
    assert_eq!(
        (&model["top5"], &model["probability"]),
        (&Value::Null, &"softmax".into())
    );

    // The explanation of red in a grid of all four is red's own cell; of dark, of 4 + 4 + 4 + 6 it is 6.
    let game = &model["pointing"][0];
    assert_eq!((&game["cells"], &game["grids"]), (&2.into(), &2.into()));
    assert_eq!(game["candidates"], 12);
    // The second most confident are a little darker than full.
    let part = |v: f64| 6.0 / (6.0 + 3.0 * (6.0 - 2.0 * v));
    let [full, less] = [255.0, 246.0].map(|v| (3.0 + part(v / 255.0)) / 4.0);
    near(&game["score"], (full + less) / 2.0);
    near(&game["standard_error"], (full - less).abs() / 2.0);
    assert!(model["completeness"]["max"].as_f64().unwrap() < 1e-5);
    assert_eq!(model["perturbation"]["images"], 13);
    assert_eq!(model["reliability"]["bins"].as_array().unwrap().len(), 15);

    let printed = text(&done.stdout);
    for part in [
        "13 images of 4 classes",
        "top-1",
        "92.31 %",
        "GridPG 2x2",
        "insertion",
    ] {
        assert!(printed.contains(part), "`{part}` is missing in\n{printed}");
    }
    // There are not nine classes.
    assert!(text(&done.stderr).contains("3x3 grids need 9 classes"));
    let plot = fs::read_to_string(folder.path().join("plot.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("Reliability") && plot.contains("2x2"));
    assert_eq!(
        files(&folder),
        ["data", "labels.txt", "net.onnx", "one.json", "plot.svg"]
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let folder = workplace();
    let reports = ["1", "3"].map(|threads| {
        let args = [
            "-q",
            "--gridpg",
            "--perturb",
            "--completeness",
            "--report",
            "r.json",
        ];
        let done = eval(&folder, &args, threads);
        assert!(done.status.success() && done.stdout.is_empty());
        fs::read(folder.path().join("r.json")).unwrap()
    });
    assert!(reports[0] == reports[1]);
}

#[test]
fn a_subset_is_spread_over_the_classes() {
    let folder = workplace();
    let done = eval(&folder, &["--images", "5"], "2");
    let printed = text(&done.stdout);
    assert!(printed.contains("5 images of 4 classes"), "{printed}");
    assert!(printed.contains("100.00 %"), "{printed}");
}

#[test]
fn what_cannot_be_evaluated_is_told_and_leaves_nothing() {
    let folder = workplace();
    let before = files(&folder);
    let fails = |args: &[&str], part: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
        let command = command.current_dir(folder.path()).arg("eval").args(args);
        let done = command.args(["--report", "r.json"]).output().unwrap();
        let told = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{args:?}: {told}");
        assert!(told.contains(part), "{args:?}: {told}");
        assert_eq!(files(&folder), before);
    };
    let usual = ["net.onnx", "--data", "data", "--labels", "labels.txt"];
    let with = |more: &[&'static str]| [&usual[..], more].concat();
    fails(
        &with(&["--gridpg", "--cells", "3"]),
        "3x3 grids need 9 classes",
    );
    fails(&["net.onnx", "--data", "data/red"], "one folder per class");
    fails(&["net.onnx", "--data", "nowhere"], "nowhere");
    let resnet = fixture("resnet_tiny/model.onnx");
    let resnet = [resnet.to_str().unwrap(), "--data", "data"];
    fails(&resnet, "--normalization");
    let normalised = [&resnet[..], &["--normalization", "imagenet"]].concat();
    fails(&normalised, "4 class folders, and");
    fs::write(folder.path().join("data/red/9.jpg"), "no picture").unwrap();
    fails(&with(&[]), "9.jpg");
}

#[test]
fn a_network_of_one_size_plays_no_grids() {
    let folder = workplace();
    for class in 0..10 {
        let path = folder.path().join(format!("ten/{class}/0.png"));
        paint(&path, 64, [class * 25, 100, 200]);
    }
    for form in ["model", "model.folded"] {
        let model = fixture("vit_tiny").join(format!("{form}.onnx"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
        let command = command.current_dir(folder.path()).arg("eval").arg(model);
        let args = ["--data", "ten", "--normalization", "imagenet", "--gridpg"];
        let done = command.args(args).output().unwrap();
        let told = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{form}: {told}");
        assert!(told.contains("cannot explain 3x3 grids"), "{form}: {told}");
        assert!(told.contains("works on larger pictures"), "{form}: {told}");
    }
}

#[test]
fn what_a_model_says_itself_goes_before_flags_for_several() {
    let folder = workplace();
    for class in 0..10 {
        let path = folder.path().join(format!("ten/{class}/0.png"));
        paint(&path, 64, [class * 25, 100, 200]);
    }
    let original = fixture("resnet_tiny/model.onnx");
    let mut options = bcosc::Options::default();
    options.settings.input = bcosc::passes::InputContract::AddInverse;
    options.settings.normalization = Some(bcosc::Preset::Imagenet.normalization());
    let mut converted = bcosc::convert(&original, &options).unwrap();
    let bcos = folder.path().join("bcos.onnx");
    converted.write(bcos, &Default::default()).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
        let command = command
            .current_dir(folder.path())
            .args(["eval", "bcos.onnx"]);
        let usual = [
            "--data", "ten", "--input", "same", "--mean", "0.5", "--std", "0.5",
        ];
        let done = command.args(usual).args(["--report", "r.json", "-q"]);
        done.args(more).output().unwrap()
    };
    // Six channels are not a picture's.
    assert_eq!(run(&[]).status.code(), Some(1));
    let done = run(&["--compare", original.to_str().unwrap()]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report = fs::read_to_string(folder.path().join("r.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let intakes = [0, 1].map(|i| report["models"][i]["intake"].clone());
    assert_eq!(intakes[0]["contract"], "add-inverse");
    assert_eq!(intakes[1]["contract"], "same");
    assert_eq!(intakes[1]["normalization"]["mean"][0], 0.5);
    assert_eq!(report["models"][0]["probability"], "sigmoid");
}
