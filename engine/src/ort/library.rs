//! Finding and loading the library.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::util::preload_dylib;
use ort::{LoadDynamicError, MINOR_VERSION};

use super::NAME;
use crate::EngineError;

/// Names a file.
const VARIABLE: &str = "ORT_DYLIB_PATH";

/// Name folders of Python environments.
const ENVIRONMENTS: [&str; 2] = ["VIRTUAL_ENV", "CONDA_PREFIX"];

#[cfg(windows)]
const NAMES: [&str; 1] = ["onnxruntime.dll"];
#[cfg(target_vendor = "apple")]
const NAMES: [&str; 1] = ["libonnxruntime.dylib"];
#[cfg(not(any(windows, target_vendor = "apple")))]
const NAMES: [&str; 2] = ["libonnxruntime.so", "libonnxruntime.so.1"];

/// Folders that not every system searches by itself, or where the file may have a name with a version only.
#[cfg(windows)]
const FOLDERS: [&str; 0] = [];
#[cfg(target_vendor = "apple")]
const FOLDERS: [&str; 2] = ["/opt/homebrew/lib", "/usr/local/lib"];
#[cfg(not(any(windows, target_vendor = "apple")))]
const FOLDERS: [&str; 5] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// Loads the library; the first call decides for the whole process.
///
/// The `ort` crate must be asked once only: after a library that it refused it takes any other for loaded.
pub(crate) fn load() -> Result<(), EngineError> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let outcome = OUTCOME.get_or_init(|| start(&find(&variable)?));
    outcome.clone().map_err(|reason| EngineError::Unavailable {
        engine: NAME,
        reason,
    })
}

/// The first library that can be opened; an error says what is there and what is not.
fn find(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    if let Some(path) = variable(VARIABLE).map(PathBuf::from) {
        // The system looks elsewhere for a name alone.
        let path = path.canonicalize().unwrap_or(path);
        return match preload_dylib(&path) {
            Ok(()) => Ok(path),
            Err(error) => Err(format!(
                "{VARIABLE} is {}: {}",
                path.display(),
                full(&error)
            )),
        };
    }
    let mut reasons = Vec::new();
    for path in files(variable) {
        match preload_dylib(&path) {
            Ok(()) => return Ok(path),
            Err(error) => reasons.push(format!("{}: {}", path.display(), full(&error))),
        }
    }
    // By name alone: the system knows where to look.
    if let Some(name) = NAMES.iter().find(|name| preload_dylib(**name).is_ok()) {
        return Ok(PathBuf::from(name));
    }
    if reasons.is_empty() {
        reasons.push(format!(
            "there is no {} in the Python environment of {}, or where the system keeps libraries",
            NAMES[0],
            ENVIRONMENTS.join(" or ")
        ));
    }
    Err(format!(
        "{}; install it with `pip install onnxruntime` in an active Python environment, or set {VARIABLE} to the \
         library's file",
        reasons.join("; ")
    ))
}

/// An error with its causes.
fn full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Starts ONNX Runtime from a library that can be opened.
fn start(library: &Path) -> Result<(), String> {
    let of_library = |reason: String| format!("{}: {reason}", library.display());
    // Without a folder, the `ort` crate asks where this program is, and panics if nobody knows.
    env::current_exe().map_err(|error| of_library(error.to_string()))?;
    let builder = ort::init_from(library).map_err(|error| match error {
        LoadDynamicError::Dlopen { error, .. } => of_library(full(&error)),
        LoadDynamicError::MissingApi { .. } => of_library(format!("it is not {NAME}")),
        LoadDynamicError::BadVersion { version_str, .. } => of_library(format!(
            "it is {NAME} {version_str}, but 1.{MINOR_VERSION} or newer is needed"
        )),
    })?;
    let log = |level: LogLevel, _: &str, _: &str, place: &str, message: &str| {
        tracing::debug!("{NAME}: {level:?}: {message} ({place})");
    };
    let builder = builder.with_name("bcosc").with_telemetry(false);
    // Whoever was first has chosen; all that depends on it is where messages go.
    builder.with_logger(Arc::new(log)).commit();
    let environment = Environment::current().map_err(|error| of_library(error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(())
}

/// Libraries that are there: in Python environments, then in folders of the system.
fn files(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let environments = ENVIRONMENTS.iter().filter_map(|name| variable(name));
    let packages = environments.flat_map(|root| site_packages(Path::new(&root)));
    let capi = packages.map(|folder| folder.join("onnxruntime").join("capi"));
    let folders = capi.chain(FOLDERS.iter().map(PathBuf::from));
    folders.filter_map(|folder| newest_in(&folder)).collect()
}

/// Folders of NVIDIA's libraries in Python environments: `nvidia/cudnn/lib`, since CUDA 13 `nvidia/cu13/lib`.
pub(crate) fn nvidia_folders() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let environments = ENVIRONMENTS.iter().filter_map(|name| variable(name));
    let packages = environments.flat_map(|root| site_packages(Path::new(&root)));
    let nvidia = packages.map(|folder| folder.join("nvidia"));
    let folders = nvidia.flat_map(|nvidia| {
        let names = names_in(&nvidia).into_iter();
        names.map(move |name| nvidia.join(name).join("lib"))
    });
    folders.filter(|folder| folder.is_dir()).collect()
}

/// The file of the highest version of a library in a folder: `libcudart.so.12` for `libcudart.so`.
pub(crate) fn newest_of(folder: &Path, stem: &str) -> Option<PathBuf> {
    let versions = names_in(folder).into_iter().filter(|name| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    let newest = versions.max_by_key(|name| numbers(name))?;
    Some(folder.join(newest))
}

/// Where a Python environment keeps packages.
fn site_packages(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.join("Lib").join("site-packages")];
    let mut pythons = names_in(&root.join("lib"));
    pythons.retain(|name| name.starts_with("python"));
    pythons.sort_by_key(|name| numbers(name));
    let unix = pythons.iter().rev();
    found.extend(unix.map(|name| root.join("lib").join(name).join("site-packages")));
    found
}

/// The library of the highest version in a folder.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let names = names_in(folder).into_iter();
    let newest = names
        .filter(|name| is_library(name))
        .max_by_key(|name| numbers(name))?;
    Some(folder.join(newest))
}

/// Whether a file is called like the library: `libonnxruntime.so.1.20.0`, `libonnxruntime.1.20.0.dylib`.
fn is_library(name: &str) -> bool {
    let (stem, suffix) = NAMES[0].rsplit_once('.').unwrap_or_default();
    name.strip_prefix(stem)
        .is_some_and(|rest| rest.starts_with('.') && rest.split('.').any(|part| part == suffix))
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    let digits = name.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

/// The names in a folder; none where it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string());
    let mut names: Vec<String> = names.filter_map(Result::ok).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_called_in_several_ways() {
        let (stem, suffix) = NAMES[0].rsplit_once('.').unwrap();
        for name in [
            NAMES[0].to_owned(),
            format!("{stem}.1.20.0.{suffix}"),
            format!("{stem}.{suffix}.1.20.0"),
        ] {
            assert!(is_library(&name), "{name}");
        }
        for name in [
            format!("{stem}_providers_shared.{suffix}"),
            format!("{stem}.txt"),
            format!("x{}", NAMES[0]),
        ] {
            assert!(!is_library(&name), "{name}");
        }
    }

    #[test]
    fn the_newest_of_several_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (stem, suffix) = NAMES[0].rsplit_once('.').unwrap();
        let file = |python: &str, version: &str| {
            let packages = root.path().join("lib").join(python).join("site-packages");
            let folder = packages.join("onnxruntime").join("capi");
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(format!("{stem}.{version}.{suffix}"));
            fs::write(&path, "no library").unwrap();
            path
        };
        let older = file("python3.9", "1.18.0");
        file("python3.12", "1.9.2");
        let newer = file("python3.12", "1.20.1");
        let found = |variable: &'static str| {
            let root = root.path().as_os_str().to_owned();
            let mut found = files(&|name| (name == variable).then(|| root.clone()));
            found.retain(|path| path.starts_with(&root));
            found
        };
        assert_eq!(found("VIRTUAL_ENV"), [newer.clone(), older.clone()]);
        assert_eq!(found("CONDA_PREFIX"), [newer, older]);
        assert!(found("HOME").is_empty());
    }
}
