//! A bare Debian: what a release of Debian is without a compiler, with its own PostgreSQL and with pgvector.
//!
//! Its root is made once, by debootstrap, and kept as an archive; beside it lie the headers that a build for its
//! PostgreSQL needs. Whatever runs in the root has processes and mounts of its own, which end with it.

mod dockerfile;
mod server;
mod set_up;
mod trial;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::lock::Lock;
use crate::places::Places;
use crate::postgres::Postgres;

pub(crate) use server::{DATA, VARIABLES, link_programs};
pub use trial::try_packages;

/// A release of Debian that packages are made for and tried in.
pub struct Debian {
    number: u32,
    suite: &'static str,
    /// The major version of its PostgreSQL.
    major: u32,
    /// The later release whose pgvector is built where this one has none.
    pgvector_from: Option<&'static str>,
    folder: PathBuf,
}

impl Debian {
    /// Opens a release by its number, after making its root where it is not there yet: that takes root's rights and
    /// Debian's package archive.
    pub fn ready(places: &Places, number: u32) -> Result<Debian> {
        let (suite, major, pgvector_from) = match number {
            12 => ("bookworm", 15, Some("trixie")),
            13 => ("trixie", 17, None),
            _ => bail!("packages are made for the PostgreSQL of Debian 12 or 13, not of {number}"),
        };
        let folder = places.base.join(format!("debian-{number}"));
        let debian = Debian { number, suite, major, pgvector_from, folder };
        let _lock = Lock::take(places, "debian")?;
        if !debian.folder.exists() {
            set_up::set_up(&debian)?;
        }
        Ok(debian)
    }

    /// Its PostgreSQL, to build for: not to run.
    pub fn postgres(&self) -> Result<Postgres> {
        Postgres::from_config(&self.pg_config())
    }

    /// The root, as a tar.
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.join("root.tar")
    }

    fn pg_config(&self) -> PathBuf {
        self.folder.join(format!("headers/usr/lib/postgresql/{}/bin/pg_config", self.major))
    }
}

impl fmt::Display for Debian {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "Debian {}", self.number)
    }
}

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

    fn empty(folder: &Path) -> Result<Root> {
        fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Root(folder.to_owned()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a script of the shell in the root; what it says becomes the error where it fails.
    pub(crate) fn run(&self, script: &str) -> Result<String> {
        command::output(&mut self.shell(script))
    }

    /// Runs a script of the shell in the root, and shows what it says.
    fn show(&self, script: &str, arguments: &[&str]) -> Result<()> {
        command::run(self.shell(script).args(arguments).stdin(Stdio::null()))
    }

    /// A shell in the root, whose processes and mounts are its own, with a script; its arguments may follow.
    fn shell(&self, script: &str) -> Command {
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
