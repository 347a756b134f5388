//! The command line: exit codes, output and files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name]
        .iter()
        .collect()
}

fn model() -> PathBuf {
    fixture("resnet_tiny/model.folded.onnx")
}

fn bcosc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bcosc"));
    command.env_remove("RUST_LOG").env("COLUMNS", "80");
    command
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn finish(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    finish(bcosc().args(args).output().unwrap())
}

/// Converts a model; the arguments come after the model and `-o OUT`.
fn convert(model: &Path, output: &Path, args: &[&str]) -> Run {
    finish(
        bcosc()
            .arg(model)
            .arg("-o")
            .arg(output)
            .args(args)
            .output()
            .unwrap(),
    )
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_conversion_writes_a_model_and_tells_what_it_did() {
    let folder = folder();
    let done = convert(&model(), &folder.path().join("out.onnx"), &[]);
    assert_eq!(done.code, 0, "{}", done.err);
    for part in [
        "recipe cnn, B = 2",
        "parameters",
        "bcos",
        "exact passes at B = 1",
        "wrote ",
    ] {
        assert!(
            done.out.contains(part),
            "`{part}` is missing in\n{}",
            done.out
        );
    }
    assert!(
        done.out
            .lines()
            .all(|line| line.chars().count() <= 80 || line.contains('/')),
        "{}",
        done.out
    );
    assert!(!done.out.contains('\x1b'));
    assert_eq!(files(folder.path()), ["out.onnx"]);
}

#[test]
fn quiet_prints_nothing() {
    let folder = folder();
    let done = convert(&model(), &folder.path().join("out.onnx"), &["-q"]);
    assert_eq!(
        (done.code, done.out.as_str(), done.err.as_str()),
        (0, "", "")
    );
}

#[test]
fn equal_runs_give_equal_bytes_whatever_the_number_of_threads() {
    let folder = folder();
    let mut outputs = Vec::new();
    for (i, threads) in ["1", "4", "4"].into_iter().enumerate() {
        let path = folder.path().join(format!("{i}.onnx"));
        let report = folder.path().join(format!("{i}.json"));
        let mut command = bcosc();
        command
            .env("RAYON_NUM_THREADS", threads)
            .arg(model())
            .arg("-o")
            .arg(&path);
        let done = finish(command.args(["-q", "--verify", "off"]).output().unwrap());
        assert_eq!(done.code, 0, "{}", done.err);
        let _ = report;
        outputs.push(fs::read(path).unwrap());
    }
    assert!(outputs.iter().all(|bytes| *bytes == outputs[0]));
}

#[test]
fn a_wrong_command_line_is_code_2_and_an_error_is_code_1() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    assert_eq!(run::<&str>([]).code, 2);
    assert_eq!(run([model()]).code, 2, "without -o");
    for wrong in [
        &["--b", "0.5"][..],
        &["--skip-pass", "nonsense"],
        &["--mean", "0.5"],
        &["--rtol", "2"],
        &["--samples", "1"],
        &["--input-shapes", "x:0,3"],
    ] {
        let done = convert(&model(), &out, wrong);
        assert_eq!(done.code, 2, "{wrong:?}: {}", done.err);
    }
    let done = convert(&model(), &out, &["--input", "rgb"]);
    assert_eq!(done.code, 1);
    assert!(done.err.starts_with("error: "), "{}", done.err);
    assert!(files(folder.path()).is_empty());
}

#[test]
fn biases_that_are_removed_cannot_decay() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (model, data, out) = (model().display().to_string(), place(""), place("out.onnx"));
    let command = ["train", &model, "--data", &data, "-o", &out];
    let biases = ["--bias-decay", "5", "--biases", "remove"];
    let done = run(command.into_iter().chain(biases));
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(
        done.err.contains("contradicts --biases remove"),
        "{}",
        done.err
    );
    assert!(files(folder.path()).is_empty());
}

#[test]
fn errors_name_the_file_and_leave_no_output() {
    let folder = folder();
    let whole = fs::read(model()).unwrap();
    let broken = folder.path().join("broken.onnx");
    fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    for input in [
        broken,
        folder.path().join("missing.onnx"),
        folder.path().to_owned(),
    ] {
        let done = convert(&input, &folder.path().join("out.onnx"), &[]);
        assert_eq!(done.code, 1, "{}", done.out);
        assert!(done.err.contains(input.to_str().unwrap()), "{}", done.err);
        assert!(done.out.is_empty());
    }
    let nowhere = folder.path().join("missing").join("out.onnx");
    let done = convert(&model(), &nowhere, &[]);
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.err.contains(nowhere.to_str().unwrap()), "{}", done.err);
    assert_eq!(files(folder.path()), ["broken.onnx"]);
}

#[test]
fn every_prefix_of_a_model_is_an_error() {
    let folder = folder();
    let whole = fs::read(model()).unwrap();
    let (input, output) = (
        folder.path().join("in.onnx"),
        folder.path().join("out.onnx"),
    );
    for percent in (0..100).step_by(7) {
        fs::write(&input, &whole[..whole.len() * percent / 100]).unwrap();
        let done = convert(&input, &output, &["--verify", "off"]);
        assert_eq!(done.code, 1, "{percent} %: {}", done.err);
        assert!(!output.exists());
    }
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_found_out_first() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write anywhere.
    if fs::write(locked.join("probe"), "").is_err() {
        let done = convert(&model(), &locked.join("out.onnx"), &[]);
        assert_eq!(done.code, 1);
        assert!(done.err.contains("out.onnx"), "{}", done.err);
    }
    let done = convert(&model(), &folder.path().join("nowhere/out.onnx"), &[]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("nowhere"), "{}", done.err);
}

#[test]
fn a_model_can_be_replaced_by_its_conversion() {
    let folder = folder();
    let path = folder.path().join("model.onnx");
    fs::copy(model(), &path).unwrap();
    let elsewhere = folder.path().join("elsewhere.onnx");
    assert_eq!(
        convert(&path, &elsewhere, &["-q", "--verify", "off"]).code,
        0
    );
    assert_eq!(convert(&path, &path, &["-q", "--verify", "off"]).code, 0);
    assert!(fs::read(&path).unwrap() == fs::read(&elsewhere).unwrap());
}

#[test]
fn a_converted_model_is_not_converted_again() {
    let folder = folder();
    let (once, twice) = (
        folder.path().join("once.onnx"),
        folder.path().join("twice.onnx"),
    );
    assert_eq!(convert(&model(), &once, &["-q", "--verify", "off"]).code, 0);
    let done = convert(&once, &twice, &[]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("already"), "{}", done.err);
    assert!(!twice.exists());
}

#[test]
fn recipe_none_copies_the_model() {
    let folder = folder();
    for name in ["model.onnx", "model.folded.onnx", "model.opset13.onnx"] {
        let (input, output) = (
            fixture("densenet_tiny").join(name),
            folder.path().join(name),
        );
        let done = convert(&input, &output, &["--recipe", "none"]);
        assert_eq!(done.code, 0, "{}", done.err);
        let [before, after] = [&input, &output].map(|path| bcosc_onnx::read(path).unwrap().model);
        assert!(before == after, "{name}");
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let done = convert(&model(), &out, &["--dry-run", "--verify", "off"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("no model was written"), "{}", done.out);
    assert_eq!(
        run([model().to_str().unwrap(), "--dry-run", "--verify", "off"]).code,
        0
    );
    assert!(files(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_run_and_leaves_nothing() {
    let folder = folder();
    // So many samples that the proof outlasts the wait.
    let mut child = bcosc()
        .arg(model())
        .arg("-o")
        .arg(folder.path().join("out.onnx"))
        .args(["-q", "--samples", "10000"])
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(files(folder.path()), [""; 0]);
}

#[test]
fn unpooling_where_nothing_is_pooled_says_what_to_do() {
    let folder = folder();
    let done = convert(
        &model(),
        &folder.path().join("out.onnx"),
        &["--recipe", "clip", "--attention-unpool"],
    );
    assert_eq!(done.code, 1);
    assert!(
        done.err.contains("no attention pool") && done.err.contains("--attention-unpool"),
        "{}",
        done.err
    );
    assert!(files(folder.path()).is_empty());
}

#[test]
fn an_output_that_is_not_there_is_told_with_those_that_are() {
    let folder = folder();
    let done = convert(
        &model(),
        &folder.path().join("out.onnx"),
        &["--output", "embedding"],
    );
    assert_eq!(done.code, 1);
    assert!(
        done.err.contains("no output `embedding`") && done.err.contains("`logits`"),
        "{}",
        done.err
    );
}

#[test]
fn inspect_recognises_what_transformers_are_made_of() {
    let path = fixture("vit_tiny/model.opset13.onnx");
    let done = run(["inspect", path.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{}", done.err);
    for part in [
        "5 x layer norm",
        "2 x GELU",
        "2 x attention",
        "`logits` = W(x)x",
    ] {
        assert!(
            done.out.contains(part),
            "`{part}` is missing in\n{}",
            done.out
        );
    }
    let done = run(["inspect", "--json", path.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(json["composites"].as_array().unwrap().len(), 3);
    assert_eq!(json["linearity"][0]["dynamic_linear"], true);
}

#[test]
fn every_pass_can_be_dumped() {
    let folder = folder();
    let dump = folder.path().join("ir");
    let args = [
        "--verify",
        "off",
        "-q",
        "--dump-ir",
        dump.to_str().unwrap(),
        "--stop-after",
        "fold-constants",
    ];
    assert_eq!(
        convert(&model(), &folder.path().join("out.onnx"), &args).code,
        0
    );
    let names = files(&dump);
    assert_eq!(names[0], "00-original.txt");
    assert!(
        names.last().unwrap().ends_with("-fold-constants.txt"),
        "{names:?}"
    );
    assert!(
        fs::read_to_string(dump.join("00-original.txt"))
            .unwrap()
            .contains("Conv")
    );
}

#[test]
fn the_report_says_what_the_table_says() {
    let folder = folder();
    let path = folder.path().join("report.json");
    let out = folder.path().join("out.onnx");
    let done = convert(&model(), &out, &["-q", "--report", path.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{}", done.err);
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(report["bcosc"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["recipe"], "cnn");
    assert_eq!(report["options"]["settings"]["b"], 2.0);
    assert_eq!(report["after"]["bytes"], fs::metadata(&out).unwrap().len());
    assert!(report["before"]["nodes"].as_u64().unwrap() > 0);
    let passes = report["passes"].as_array().unwrap();
    assert!(passes.iter().any(|p| p["pass"] == "bcos" && !p["outcome"]["changes"].as_array().unwrap().is_empty()));
    assert!(
        report["proof"]["exact"]["overall"]["max_relative"]
            .as_f64()
            .unwrap()
            < 1e-4
    );
    assert!(
        report["proof"]["altered"]["overall"]["max_relative"]
            .as_f64()
            .unwrap()
            < 1e-4
    );
    assert_eq!(report["proof"]["sensitivity"]["finite"], true);
}

#[test]
fn verify_compares_two_models() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let same = [
        "--b",
        "1",
        "--keep-biases",
        "--keep-max-pool",
        "--input",
        "add-inverse",
        "--normalization",
        "imagenet",
    ];
    assert_eq!(
        convert(
            &model(),
            &out,
            &[&same[..], &["-q", "--verify", "off"]].concat()
        )
        .code,
        0
    );
    let compare =
        |a: &Path, b: &Path| finish(bcosc().arg("verify").arg(a).arg(b).output().unwrap());
    let done = compare(&model(), &out);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(done.out.contains("input add-inverse"), "{}", done.out);

    assert_eq!(convert(&model(), &out, &["-q", "--verify", "off"]).code, 0);
    let done = compare(&model(), &out);
    assert_eq!(done.code, 1, "{}", done.out);
    assert!(done.err.contains("differ: "), "{}", done.err);
    let done = compare(&model(), &fixture("densenet_tiny/model.folded.onnx"));
    assert_eq!(done.code, 1, "{}", done.out);
}

#[test]
fn inspect_says_what_a_model_consists_of() {
    let done = run(["inspect", model().to_str().unwrap()]);
    assert_eq!(done.code, 0, "{}", done.err);
    for part in [
        "Conv",
        "probably folded",
        "recipe cnn: converts",
        "recipe vit: converts",
    ] {
        assert!(
            done.out.contains(part),
            "`{part}` is missing in\n{}",
            done.out
        );
    }
    let done = run(["inspect", "--json", model().to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(json["outputs"].as_array().unwrap().len(), 1);
    let done = run(["inspect", "--text", model().to_str().unwrap()]);
    assert!(done.out.contains("Conv"), "{}", done.out);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    use std::process::Stdio;
    let mut child = bcosc()
        .args(["inspect", "--text", "--full"])
        .arg(model())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn calibration_needs_to_know_the_normalisation() {
    let folder = folder();
    let images = folder.path().join("images");
    fs::create_dir(&images).unwrap();
    let done = convert(
        &model(),
        &folder.path().join("out.onnx"),
        &["--calibrate", images.to_str().unwrap()],
    );
    assert_eq!(done.code, 1);
    assert!(done.err.contains("--normalization"), "{}", done.err);
}

#[test]
fn passes_are_listed() {
    let done = run(["--list-passes"]);
    assert_eq!(done.code, 0);
    insta::assert_snapshot!("list-passes", done.out);
}

#[test]
fn help_fits_the_terminal() {
    let help = run(["--help"]);
    assert_eq!(help.code, 0);
    insta::assert_snapshot!("help", help.out);
    let listed = help.out.lines().skip_while(|line| *line != "Commands:");
    let commands = listed.skip(1).take_while(|line| !line.is_empty());
    // What a line continues is indented further.
    let commands: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.contains(&"verify"), "{commands:?}");
    for command in commands {
        let done = run([command, "--help"]);
        assert_eq!(done.code, 0);
        insta::assert_snapshot!(format!("help-{command}"), done.out);
    }
}

#[test]
fn version_is_short() {
    assert_eq!(
        run(["-V"]).out,
        format!("bcosc {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// Standard output and standard error of a run into a pipe.
#[cfg(unix)]
fn piped(args: &[&str]) -> (i32, Vec<u8>, String) {
    let done = bcosc().arg(model()).args(args).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    (done.status.code().unwrap(), done.stdout, said)
}

#[cfg(unix)]
#[test]
fn a_dash_is_standard_output_which_tables_stay_away_from() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let file = out.to_str().unwrap();
    let (code, report, said) = piped(&["-o", file, "--report", "-"]);
    assert_eq!(code, 0, "{said}");
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["recipe"], "cnn");
    assert!(said.contains("wrote "), "{said}");

    let (code, bytes, said) = piped(&["-o", "-"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(bytes, fs::read(&out).unwrap());

    let (code, nothing, said) = piped(&["-o", "-", "--emit", "explain"]);
    assert_eq!(code, 1);
    assert!(
        nothing.is_empty() && said.contains("cannot write additional files next to"),
        "{said}"
    );
    let (code, nothing, said) = piped(&["-o", "-", "--report", "-"]);
    assert_eq!(code, 1);
    assert!(nothing.is_empty() && said.contains("two outputs"), "{said}");
    assert_eq!(files(folder.path()), ["out.onnx"]);
}

#[cfg(unix)]
#[test]
fn standard_output_goes_on_where_it_stands() {
    use std::io::{Read, Seek, Write};
    let folder = folder();
    let path = folder.path().join("all.txt");
    let mut all = fs::File::create_new(&path).unwrap();
    all.write_all(b"before\n").unwrap();
    for _ in 0..2 {
        let model = model();
        let mut run = bcosc();
        run.arg("verify").args([&model, &model]);
        run.args(["--report", "-", "-q"])
            .stdout(all.try_clone().unwrap());
        assert!(run.status().unwrap().success());
    }
    let mut text = String::new();
    let mut read = fs::File::open(&path).unwrap();
    read.rewind().unwrap();
    read.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("before\n{"), "{text}");
    assert_eq!(text.matches("\"figures\"").count(), 2, "{text}");
}

#[test]
fn results_neither_share_a_file_nor_replace_what_is_read() {
    let folder = folder();
    let read = folder.path().join("read.onnx");
    fs::copy(model(), &read).unwrap();
    let output = folder.path().join("out.onnx");
    let other = folder.path().join(".").join("out.onnx");
    let done = convert(&read, &output, &["--report", other.to_str().unwrap()]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("two outputs"), "{}", done.err);
    let done = convert(&read, &output, &["--report", read.to_str().unwrap()]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("would be overwritten"), "{}", done.err);
    assert_eq!(files(folder.path()), ["read.onnx"]);
    assert_eq!(fs::read(&read).unwrap(), fs::read(model()).unwrap());
}

#[test]
fn a_place_for_the_report_is_looked_for_before_the_work() {
    let folder = folder();
    let report = folder.path().join("missing/report.json");
    let output = folder.path().join("out.onnx");
    let done = convert(&model(), &output, &["--report", report.to_str().unwrap()]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("missing/report.json"), "{}", done.err);
    assert!(files(folder.path()).is_empty());
}

/// No machine has so many devices.
#[test]
fn a_device_that_is_missing_is_an_error_of_every_command_that_runs_models() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (model, out, data) = (model().display().to_string(), place("out"), place(""));
    for command in [
        vec![&*model, "-o", &out],
        vec!["verify", &model, &model],
        vec!["explain", &model, "cat.png", "-o", &out],
        vec!["train", &model, "--data", &data, "-o", &out],
        vec!["align", &model, "--data", &data, "-o", &out],
    ] {
        let done = run(command.iter().copied().chain(["--device", "cuda:10000"]));
        assert_eq!(done.code, 1, "{command:?}");
        for part in ["cuda:10000", "--device cpu"] {
            assert!(done.err.contains(part), "{command:?}: {}", done.err);
        }
        assert!(files(folder.path()).is_empty(), "{command:?}");
    }
    let wrong = run(["verify", &model, &model, "--device", "gpu"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("`cuda:N`"), "{}", wrong.err);
}

#[test]
fn a_precision_that_the_device_does_not_have_is_an_error_before_the_work() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (model, out, data) = (model().display().to_string(), place("out"), place(""));
    for command in [
        vec!["explain", &model, "cat.png", "-o", &out],
        vec!["train", &model, "--data", &data, "-o", &out],
        vec!["align", &model, "--data", &data, "-o", &out],
    ] {
        let cpu = ["--device", "cpu", "--precision", "bf16"];
        let done = run(command.iter().copied().chain(cpu));
        assert_eq!(done.code, 1, "{command:?}");
        for part in [
            "does not compute in bf16",
            "CUDA device",
            "--precision fp32",
        ] {
            assert!(done.err.contains(part), "{command:?}: {}", done.err);
        }
        assert!(files(folder.path()).is_empty(), "{command:?}");
    }
    let wrong = run([
        "explain",
        &model,
        "cat.png",
        "-o",
        &out,
        "--precision",
        "fp16",
    ]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("`bf16`"), "{}", wrong.err);
}

#[test]
fn a_conversion_says_why_it_runs_on_the_cpu_if_asked() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let quiet = convert(&model(), &out, &["--device", "auto"]);
    assert!(!quiet.err.to_lowercase().contains("cuda"), "{}", quiet.err);
    let verbose = convert(&model(), &out, &["--device", "auto", "-v"]);
    assert!(verbose.err.contains("CUDA device"), "{}", verbose.err);
}

#[test]
fn a_folder_for_gpus_is_written_beside_the_model() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let done = convert(&model(), &out, &["--emit", "cuda", "--emit-batch", "3"]);
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.out.contains("wrote folder "), "{}", done.out);
    assert_eq!(files(folder.path()), ["out.cuda", "out.onnx"]);
    assert_eq!(
        files(&folder.path().join("out.cuda")),
        [
            "Cargo.toml",
            "README.md",
            "constants.safetensors",
            "kernels.cu",
            "plan.json",
            "src",
            "state.safetensors"
        ]
    );
}

/// Nothing but its dependencies, of versions that this workspace has too, so that no network is needed.
#[test]
#[ignore = "compiles dependencies, which takes a minute"]
fn the_program_of_a_folder_for_gpus_builds_on_its_own() {
    let folder = folder();
    let out = folder.path().join("out.onnx");
    let done = convert(
        &model(),
        &out,
        &["--emit", "cuda", "--emit-precision", "bf16"],
    );
    assert_eq!(done.code, 0, "{}", done.err);
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = std::process::Command::new(cargo);
    build.args(["check", "--offline", "--quiet"]);
    let built = build
        .current_dir(folder.path().join("out.cuda"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success() && said.is_empty(), "{said}");
}
