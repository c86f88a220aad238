//! Programs of the checkout that run in node, with the packages that their lock files name.
//!
//! A program is copied below the base folder and its packages are fetched there: nothing is written beside its source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::clients;
use crate::command;
use crate::lock::Lock;
use crate::places::Places;
use crate::progress::step;

/// Copies the program in a folder of the checkout, and fetches its packages unless they are there; returns the
/// copy.
pub fn installed(places: &Places, source: &str) -> Result<PathBuf> {
    if !clients::has_node()? {
        bail!(
            "node {} or later with npm is not on the PATH: install it (https://nodejs.org)",
            clients::OLDEST_NODE
        );
    }
    let name = source.replace('/', "-");
    let _lock = Lock::take(places, &name)?;
    let folder = places.base.join(&name);
    copy(&places.workspace.root.join(source), &folder)?;
    // Written last: packages without it are half installed, or of another lock file.
    let stamp = folder.join("installed");
    let wanted = fs::read(folder.join("package-lock.json")).context("cannot read package-lock.json")?;
    if !fs::read(&stamp).is_ok_and(|present| present == wanted) {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
        step(&format!("fetching the npm packages of {source}"), || command::output(&mut npm)).context(
            "npm cannot install the packages: this step needs the npm registry, or a configuration of npm that names a \
             mirror of it",
        )?;
        fs::write(stamp, wanted).context("cannot finish the installation")?;
    }
    Ok(folder)
}

/// Copies files and folders, but not packages that are installed beside the source.
fn copy(source: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for entry in fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))? {
        let from = entry?.path();
        let to = folder.join(from.file_name().context("a file has a name")?);
        if !from.is_dir() {
            let wanted = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            // Another process may be running the copy.
            if !fs::read(&to).is_ok_and(|present| present == wanted) {
                fs::write(&to, wanted).with_context(|| format!("cannot write {}", to.display()))?;
            }
        } else if !from.ends_with("node_modules") {
            copy(&from, &to)?;
        }
    }
    Ok(())
}
