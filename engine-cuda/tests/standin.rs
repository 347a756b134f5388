//! The runtime without a GPU, on stand-ins for NVIDIA's libraries in `standin/`. They run everything on the CPU, late and in the
//! order of streams, and refuse what the libraries would refuse. Skipped where there is no C++ compiler.
//!
//! The loader reads its folders when a process starts, so each case runs in a process of its own: the same test, which finds the name
//! of its case in the environment.

#![cfg(target_os = "linux")]

#[path = "standin/cases.rs"]
mod cases;
mod common;
#[path = "standin/emitted.rs"]
mod emitted;
#[path = "standin/operators.rs"]
mod operators;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output};
use std::{env, fs, thread};

use common::cpu::compiler;

/// Libraries with the files that they are made of.
const LIBRARIES: [(&str, &[&str]); 4] = [
    (
        "libcuda.so.1",
        &[
            "driver_modules",
            "report",
            "memory",
            "streams",
            "driver_context",
            "driver_memory",
            "driver_streams",
        ],
    ),
    ("libnvrtc.so.12", &["nvrtc"]),
    ("libcublasLt.so.12", &["cublaslt", "cublaslt_matmul"]),
    (
        "libcudnn.so.9",
        &["cudnn_descriptors", "cudnn_algorithms", "cudnn_convolution"],
    ),
];

/// A case, with what the environment says to the stand-ins.
struct Case {
    name: &'static str,
    run: fn(),
    settings: &'static [(&'static str, &'static str)],
}

const fn case(name: &'static str, run: fn(), settings: &'static [(&str, &str)]) -> Case {
    Case {
        name,
        run,
        settings,
    }
}

const CASES: [Case; 11] = [
    case("networks", cases::networks, &[]),
    // The driver takes no intermediate code of the compiler, which is newer.
    case("state", cases::state, &[("STANDIN_DRIVER", "12020")]),
    case("late_reads", cases::late_reads, &[]),
    case(
        "threads",
        cases::threads,
        &[("STANDIN_LAUNCH_MICROSECONDS", "500")],
    ),
    case(
        "newer_device",
        cases::newer_device,
        &[("STANDIN_ARCHITECTURE", "100")],
    ),
    case(
        "older_cudnn",
        cases::older_cudnn,
        &[("STANDIN_CUDNN", "8907")],
    ),
    case(
        "full_device",
        cases::full_device,
        &[("STANDIN_MEMORY", "60000")],
    ),
    case(
        "little_memory",
        cases::little_memory,
        &[("STANDIN_MEMORY", cases::LITTLE)],
    ),
    case(
        "no_kernels",
        cases::no_kernels,
        &[
            ("STANDIN_COMPILER", "false"),
            ("XDG_CACHE_HOME", "/dev/null"),
        ],
    ),
    case("failures", cases::failures, &[("STANDIN_FAILURES", "3")]),
    case(OPERATORS, operators::operators, &[]),
];

/// A case that takes a minute by itself, and runs where the variable is set.
const OPERATORS: &str = "operators";
const WITH_OPERATORS: &str = "BCOSC_STANDIN_OPERATORS";
/// Names the case of a process.
const CASE: &str = "BCOSC_STANDIN_CASE";

#[test]
fn the_runtime_keeps_the_rules_of_the_libraries() {
    if let Ok(name) = env::var(CASE) {
        let case = CASES.iter().find(|case| case.name == name);
        return (case.unwrap().run)();
    }
    let Some(compiler) = compiler() else {
        say("skipped: there is no C++ compiler");
        return;
    };
    if !emitted::program().exists() {
        say("skipped: the program that is emitted; `cargo build --workspace --examples` builds it");
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    build(compiler, folder);
    let operators = env::var_os(WITH_OPERATORS).is_some();
    let wanted = |case: &&Case| operators || case.name != OPERATORS;
    // The first takes as long as the others.
    let (first, others) = CASES.split_at(1);
    thread::scope(|scope| {
        for cases in [first, others] {
            scope.spawn(move || {
                for case in cases.iter().filter(wanted) {
                    run(compiler, folder, case);
                }
            });
        }
    });
}

/// Says something to the user, whether the test succeeds or not: the harness keeps what macros print.
fn say(what: &str) {
    let mut terminal = io::stderr();
    writeln!(terminal, "{what}").unwrap();
}

/// Builds the libraries into `lib`, beside what kernels include.
fn build(compiler: &str, folder: &Path) {
    let sources = common::fixtures().join("../engine-cuda/tests");
    let (lib, shared) = (folder.join("lib"), folder.join("common"));
    let headers = [
        (&lib, "kernel.h", "standin"),
        (&lib, "entry.h", "standin"),
        (&shared, "cuda.h", "common"),
    ];
    for (to, name, from) in headers {
        fs::create_dir_all(to).unwrap();
        fs::copy(sources.join(from).join(name), to.join(name)).unwrap();
    }
    let driver = lib.join(LIBRARIES[0].0);
    for (name, files) in LIBRARIES {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall"]);
        command
            .args(["-ffp-contract=off", "-o"])
            .arg(lib.join(name));
        command.arg(format!("-Wl,-soname,{name}"));
        // As one text, which compiles in a third of the time.
        for file in files {
            let source = sources.join("standin").join(format!("{file}.cpp"));
            command.arg("-include").arg(source);
        }
        command.args(["-x", "c++", "/dev/null"]);
        if driver.exists() {
            command.args(["-x", "none"]).arg(&driver);
        }
        let warnings = done(&mut command).stderr;
        eprint!("{}", String::from_utf8_lossy(&warnings));
    }
    // Headers that are read once, since there are hundreds of kernels.
    let mut headers = Command::new(compiler);
    headers.args(["-std=c++17", "-w", "-O0", "-fPIC", "-ffp-contract=off"]);
    headers.args(["-x", "c++-header"]).arg(lib.join("kernel.h"));
    done(headers.arg("-o").arg(lib.join("kernel.h.gch")));
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// Runs a case in a process of its own, which must keep all rules and give everything back.
fn run(compiler: &str, folder: &Path, case: &Case) {
    let report = folder.join(format!("{}.report", case.name));
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "the_runtime_keeps_the_rules_of_the_libraries"])
        .env(CASE, case.name)
        .env("LD_LIBRARY_PATH", folder.join("lib"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("STANDIN_COMPILER", compiler)
        .env("STANDIN_REPORT", &report)
        .envs(case.settings.iter().copied());
    let output = done(&mut command);
    let found = fs::read_to_string(&report).unwrap_or_default();
    assert_eq!(
        found,
        "rules broken: 0\n",
        "{}\n{}",
        case.name,
        String::from_utf8_lossy(&output.stderr)
    );
}
