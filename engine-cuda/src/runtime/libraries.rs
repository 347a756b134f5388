//! Finding NVIDIA's libraries: where the system keeps them, or in packages of an active Python environment.
//!
//! A library that is open already is found by its own name, whatever its folder. So one that a Python package brings is
//! opened by path here, and cudarc gets it by name.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsString, c_int};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use bcosc_engine::EngineError;

/// What messages call the engine.
pub const NAME: &str = "CUDA";

/// Name folders of Python environments.
const ENVIRONMENTS: [&str; 2] = ["VIRTUAL_ENV", "CONDA_PREFIX"];

/// Folders of the system that its own search may leave out.
const FOLDERS: [&str; 4] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/lib",
    "/opt/cuda/lib64",
    "/usr/lib/wsl/lib",
];

/// A library that the engine needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// The driver, `libcuda`.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Products of matrices.
    CublasLt,
    /// Convolutions.
    Cudnn,
}

/// What is known of a library.
struct Facts {
    /// The stem of its name.
    stem: &'static str,
    /// Versions whose interface the engine uses, the newest first.
    versions: &'static [u32],
    /// What brings it.
    source: Source,
}

/// What brings a library.
#[derive(Clone, Copy, Debug)]
enum Source {
    Driver,
    /// A package of Python.
    Package(&'static str),
}

/// How to get what is missing.
fn advice(missing: &[Library]) -> String {
    let mut packages = String::new();
    let mut parts = Vec::new();
    for library in missing {
        match library.facts().source {
            Source::Driver => {
                parts.push("install NVIDIA's driver, version 525 or newer".to_owned())
            }
            Source::Package(name) => packages = format!("{packages} {name}"),
        }
    }
    if !packages.is_empty() {
        parts.push(format!(
            "get libraries with `pip install{packages}` in an active Python environment, or install CUDA 12 or 13 and cuDNN 9"
        ));
    }
    parts.join("; ")
}

impl Library {
    /// All of them.
    pub const ALL: [Library; 4] = [
        Library::Driver,
        Library::Nvrtc,
        Library::CublasLt,
        Library::Cudnn,
    ];

    fn facts(self) -> Facts {
        let (stem, versions, source): (_, &[u32], _) = match self {
            Library::Driver => ("cuda", &[1], Source::Driver),
            Library::Nvrtc => (
                "nvrtc",
                &[13, 12],
                Source::Package("nvidia-cuda-nvrtc-cu12"),
            ),
            Library::CublasLt => ("cublasLt", &[13, 12], Source::Package("nvidia-cublas-cu12")),
            Library::Cudnn => ("cudnn", &[9], Source::Package("nvidia-cudnn-cu12")),
        };
        Facts {
            stem,
            versions,
            source,
        }
    }

    /// Names of its file.
    fn names(self) -> Vec<String> {
        let Facts { stem, versions, .. } = self.facts();
        if cfg!(windows) {
            return match self {
                Library::Driver => vec!["nvcuda.dll".to_owned()],
                _ => versions
                    .iter()
                    .map(|v| format!("{stem}64_{v}.dll"))
                    .collect(),
            };
        }
        // What is newer than the driver does not run on it.
        let cuda = matches!(self, Library::Nvrtc | Library::CublasLt);
        let newest = if cuda { driver_version() } else { None };
        let fits = |version: &&u32| newest.is_none_or(|newest| **version <= newest);
        let versioned = versions.iter().filter(fits);
        let versioned = versioned.map(|version| format!("lib{stem}.so.{version}"));
        versioned.chain([format!("lib{stem}.so")]).collect()
    }
}

/// The version of CUDA that the driver is for: 12 or 13. `None` without a driver.
fn driver_version() -> Option<u32> {
    static VERSION: OnceLock<Option<u32>> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let library = open(Path::new("libcuda.so.1")).ok()?;
        let mut version: c_int = 0;
        // SAFETY: the function has this type in every driver, and writes one number.
        let status = unsafe {
            let function = library
                .get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion")
                .ok()?;
            function(&raw mut version)
        };
        let version = u32::try_from(version).ok().filter(|_| status == 0)?;
        Some(version / 1000)
    })
}

/// Opens libraries.
///
/// # Errors
/// [`EngineError::Unavailable`] says which is missing, and how to get it.
pub fn require(libraries: &[Library]) -> Result<(), EngineError> {
    static OPEN: Mutex<BTreeMap<Library, libloading::Library>> = Mutex::new(BTreeMap::new());
    // A panic in between leaves the map as it was.
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let (mut missing, mut reasons) = (Vec::new(), Vec::new());
    for &library in libraries {
        if open.contains_key(&library) {
            continue;
        }
        match find(library, &variable) {
            Ok(found) => {
                open.insert(library, found);
            }
            Err(reason) => {
                missing.push(library);
                reasons.push(reason);
            }
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(EngineError::Unavailable {
            engine: NAME,
            reason: format!("{}; {}", reasons.join(", "), advice(&missing)),
        }),
    }
}

/// The first file of a library that can be opened.
fn find(
    library: Library,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<libloading::Library, String> {
    let names = library.names();
    let by_name = names.iter().map(PathBuf::from);
    let mut reasons = Vec::new();
    // By name alone first: the program may have been started with one in mind.
    for path in by_name.chain(files(&names, variable)) {
        match open(&path) {
            Ok(found) => return Ok(found),
            // That the system does not know a name says nothing.
            Err(reason) if path.parent().is_some_and(|p| !p.as_os_str().is_empty()) => {
                reasons.push(format!("{}: {reason}", path.display()));
            }
            Err(_) => {}
        }
    }
    if reasons.is_empty() {
        let name = names.first().cloned().unwrap_or_default();
        reasons.push(format!("there is no {name}"));
    }
    Err(reasons.join("; "))
}

fn open(path: &Path) -> Result<libloading::Library, String> {
    #[cfg(unix)]
    {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: the constructors of these libraries have no conditions.
        let found = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        found.map(Into::into).map_err(|error| error.to_string())
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the constructors of these libraries have no conditions.
        let found = unsafe { libloading::Library::new(path) };
        found.map_err(|error| error.to_string())
    }
}

/// Files of these names that are there: in packages of Python environments, then in folders of the system.
fn files(names: &[String], variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let environments = ENVIRONMENTS.iter().filter_map(|name| variable(name));
    let mut folders: Vec<PathBuf> = environments
        .flat_map(|root| packages(Path::new(&root)))
        .collect();
    folders.extend(FOLDERS.iter().map(PathBuf::from));
    let paths = folders
        .iter()
        .flat_map(|folder| names.iter().map(|name| folder.join(name)));
    paths.filter(|path| path.is_file()).collect()
}

/// Folders of libraries in a Python environment: `nvidia/cudnn/lib`, since CUDA 13 `nvidia/cu13/lib`.
fn packages(root: &Path) -> Vec<PathBuf> {
    let pythons = entries(&root.join("lib")).into_iter().filter(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("python"))
    });
    let sites = pythons.map(|python| python.join("site-packages"));
    let sites = sites.chain([root.join("Lib").join("site-packages")]);
    let packages = sites.flat_map(|site| entries(&site.join("nvidia")));
    packages
        .flat_map(|package| ["lib", "bin"].map(|folder| package.join(folder)))
        .collect()
}

/// What is in a folder, by name; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_python_environments_are_found() {
        let root = tempfile::tempdir().unwrap();
        let file = |package: &str, name: &str| {
            let folder = [
                "lib",
                "python3.12",
                "site-packages",
                "nvidia",
                package,
                "lib",
            ];
            let folder = folder
                .iter()
                .fold(root.path().to_owned(), |path, part| path.join(part));
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(name);
            fs::write(&path, "no library").unwrap();
            path
        };
        let twelve = file("cuda_nvrtc", "libnvrtc.so.12");
        let thirteen = file("cu13", "libnvrtc.so.13");
        file("cudnn", "libcudnn.so.9");
        let names = ["libnvrtc.so.13".to_owned(), "libnvrtc.so.12".to_owned()];
        let found = |variable: &'static str| {
            let root = root.path().as_os_str().to_owned();
            let mut found = files(&names, &|name| (name == variable).then(|| root.clone()));
            found.retain(|path| path.starts_with(&root));
            found
        };
        assert_eq!(found("VIRTUAL_ENV"), [thirteen.clone(), twelve.clone()]);
        assert_eq!(found("CONDA_PREFIX"), [thirteen, twelve]);
        assert!(found("HOME").is_empty());
    }

    #[test]
    fn what_is_missing_is_named_with_how_to_get_it() {
        for library in Library::ALL {
            if let Err(EngineError::Unavailable { reason, .. }) = require(&[library]) {
                assert!(reason.ends_with(&advice(&[library])), "{reason}");
            }
        }
        let all = advice(&Library::ALL);
        assert!(all.starts_with("install NVIDIA's driver"), "{all}");
        let packages = "`pip install nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12 nvidia-cudnn-cu12`";
        assert!(all.contains(packages), "{all}");
        assert!(!advice(&[Library::Driver]).contains("pip"));
    }
}
