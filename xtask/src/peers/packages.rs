//! The peers themselves, from pinned Python and npm packages.
//!
//! The stamp holds the names of the packages that were asked for and is written last, as that of the tests'
//! environment is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::progress::step;

const PINNED: [&str; 3] = ["requirements.txt", "package.json", "package-lock.json"];

pub(super) struct Packages {
    pub(super) python: PathBuf,
    /// The folder that holds node_modules.
    pub(super) node: PathBuf,
}

impl Packages {
    /// Opens them, after installing them below `work` where they are not there yet.
    pub(super) fn ready(scripts: &Path, work: &Path) -> Result<Packages> {
        let (python, node) = (work.join("python"), work.join("node"));
        let packages = Packages { python: python.join("bin/python"), node: node.clone() };
        let mut wanted = String::new();
        for file in PINNED {
            wanted +=
                &fs::read_to_string(scripts.join(file)).with_context(|| format!("cannot read {file}"))?;
        }
        let stamp = work.join("packages");
        if fs::read_to_string(&stamp).is_ok_and(|present| present == wanted) && packages.run()? {
            return Ok(packages);
        }
        for path in [&python, &node] {
            if path.exists() {
                fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        fs::create_dir_all(&node).with_context(|| format!("cannot make {}", node.display()))?;
        install_npm(scripts, &node)?;
        install_python(scripts, &python)?;
        fs::write(stamp, wanted).context("cannot finish the peers' environment")?;
        Ok(packages)
    }

    /// The virtual environment's Python is a link to the system's, which may have been replaced since.
    fn run(&self) -> Result<bool> {
        let status = command::status_if_present(Command::new(&self.python).args(["-c", "import torch"]))?;
        Ok(status.is_some_and(|status| status.success()))
    }
}

fn install_npm(scripts: &Path, node: &Path) -> Result<()> {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(scripts.join(file), node.join(file))?;
    }
    if command::status_if_present(Command::new("npm").arg("--version"))?.is_none() {
        bail!("npm is not on the PATH: the bench needs Node 20 or newer with npm");
    }
    // The install script of onnxruntime-node fetches a build for graphics cards from elsewhere.
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(node);
    step("fetching transformers.js (120 MB)", || command::output(&mut npm))
        .context("npm cannot install the packages")?;
    Ok(())
}

fn install_python(scripts: &Path, python: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    step("making a Python environment", || command::output(venv.args(["-m", "venv"]).arg(python)))?;
    let mut pip = Command::new(python.join("bin/python"));
    // PyTorch's compiler, and other packages that are named and never imported here, are left out.
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
        "--requirement",
    ])
    .arg(scripts.join("requirements.txt"));
    step("fetching PyTorch, OpenCLIP, CLIP and ONNX Runtime (2.5 GB)", || command::output(&mut pip))
        .context("pip cannot install the packages")?;
    Ok(())
}
