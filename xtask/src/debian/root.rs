//! A folder that is the root of a Debian, and running something in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::release::Debian;
use crate::command;

/// A folder that is a root, removed when it is dropped.
pub(crate) struct Root(PathBuf);

impl Root {
    /// The bare root of a release, in a folder that is not there yet.
    pub(crate) fn unpack(debian: &Debian, to: &Path) -> Result<Root> {
        let root = Root::empty(to)?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--preserve-permissions", "--numeric-owner", "--file"]).arg(debian.archive());
        command::output(tar.arg("--directory").arg(to))?;
        Ok(root)
    }

    pub(super) fn empty(folder: &Path) -> Result<Root> {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Root(folder.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a script of the shell in the root; its output becomes the error where it fails.
    pub(crate) fn run(&self, script: &str) -> Result<String> {
        command::output(&mut self.shell(script))
    }

    /// Runs a script of the shell in the root, and shows its output.
    pub(super) fn show(&self, script: &str, arguments: &[&str]) -> Result<()> {
        command::run(self.shell(script).args(arguments).stdin(Stdio::null()))
    }

    /// A shell in the root, whose processes and mounts are its own, with a script; its arguments may follow.
    pub(super) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc"]);
        command.arg(
            "root=$1\nshift\nmount --rbind /dev \"$root/dev\"\nmount -t proc proc \"$root/proc\"\n\
             exec chroot \"$root\" /bin/sh -euc \"$@\"",
        );
        command.arg("sh").arg(&self.0).args([script, "sh"]);
        command.env_clear().env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
