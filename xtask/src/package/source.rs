//! The sources as PGXN takes them: an archive of the committed files, with a META.json that names this version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::release::Release;
use crate::command;
use crate::progress::say;
use crate::workspace::Workspace;

/// Makes the archive in the folder; none where the sources are no clone of git.
pub(super) fn zip(workspace: &Workspace, release: &Release, staging: &Path) -> Result<Option<PathBuf>> {
    if !workspace.root.join(".git").exists() {
        say("no archive for PGXN, for it is made of a clone of git");
        return Ok(None);
    }
    let name = format!("pg_clip-{}", release.version);
    let template = workspace.root.join("META.json.in");
    let meta =
        fs::read_to_string(&template).with_context(|| format!("cannot read {}", template.display()))?;
    let file = staging.join("META.json");
    fs::write(&file, meta.replace("@VERSION@", &release.version))?;
    let zip = staging.join(format!("{name}.zip"));
    let mut git = Command::new("git");
    // Root packs the checkout of an ordinary user as well.
    git.arg("-c").arg(format!("safe.directory={}", workspace.root.display()));
    git.current_dir(&workspace.root).args(["archive", "--format=zip"]);
    git.arg(format!("--prefix={name}/")).arg(format!("--add-file={}", file.display()));
    git.args(["--output"]).arg(&zip).arg("HEAD");
    command::output(&mut git)?;
    Ok(Some(zip))
}
