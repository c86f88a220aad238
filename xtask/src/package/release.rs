//! The properties of a build: its version, for which PostgreSQL and machine, and which glibc it needs.

use std::fs;

use anyhow::{Result, bail};

use crate::build::Built;
use crate::environment::Environment;
use crate::postgres::Postgres;
use crate::schema;
use crate::workspace::Workspace;

pub(super) struct Release {
    pub(super) major: u32,
    pub(super) version: String,
    /// As Debian and the images name it.
    pub(super) architecture: &'static str,
    /// The oldest release of glibc that has every symbol of the built files.
    pub(super) glibc: String,
}

impl Release {
    pub(super) fn of(
        workspace: &Workspace,
        postgres: &Postgres,
        built: &Built,
        environment: &Environment,
    ) -> Result<Release> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("no packages are made for {other}"),
        };
        let mut glibc = (2, 0);
        let files = [&built.library, &built.embedder, &environment.runtime().library];
        for file in files.into_iter().chain(&built.feeder) {
            glibc = glibc.max(newest_glibc(&fs::read(file)?));
        }
        let version = schema::version(&workspace.root.join("pg_clip.control"))?;
        let glibc = format!("{}.{}", glibc.0, glibc.1);
        Ok(Release { major: postgres.major, version, architecture, glibc })
    }

    /// The name of a file that is of this version, PostgreSQL and machine.
    pub(super) fn name(&self) -> String {
        let Release { major, version, architecture, .. } = self;
        format!("pg_clip-{version}-postgresql-{major}-linux-{architecture}")
    }
}

/// The newest version of glibc whose symbols a file names, as GLIBC_2.34.
fn newest_glibc(file: &[u8]) -> (u32, u32) {
    const PREFIX: &[u8] = b"GLIBC_";
    let names = file.windows(PREFIX.len()).enumerate().filter(|(_, window)| *window == PREFIX);
    let versions = names.filter_map(|(at, _)| {
        let name = file[at + PREFIX.len()..].split(|byte| *byte == 0).next()?;
        let (major, minor) = std::str::from_utf8(name).ok()?.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    });
    versions.max().unwrap_or((2, 0))
}

#[cfg(test)]
mod tests {
    use super::newest_glibc;

    #[test]
    fn reads_the_newest_glibc() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.9\0"), (2, 34));
        assert_eq!(newest_glibc(b"nothing"), (2, 0));
    }
}
