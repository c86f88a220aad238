//! A PostgreSQL installation, as its pg_config describes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::places::path_hash;

#[derive(Clone)]
pub struct Postgres {
    pub pg_config: PathBuf,
    pub major: u32,
    pub version: String,
    pub bindir: PathBuf,
    pub pkglibdir: PathBuf,
    pub sharedir: PathBuf,
}

impl Postgres {
    /// Reads what the pg_config says; refuses a PostgreSQL that pg_clip does not run on.
    pub fn from_config(pg_config: &Path) -> Result<Postgres> {
        let pg_config = std::path::absolute(pg_config)?;
        let ask = |what: &str| -> Result<String> {
            let answer = command::output(Command::new(&pg_config).arg(what))
                .with_context(|| format!("{} is no pg_config", pg_config.display()))?;
            Ok(answer.lines().next().unwrap_or_default().to_owned())
        };
        let version = ask("--version")?;
        let major = major(&version).with_context(|| format!("{} is no pg_config", pg_config.display()))?;
        let sharedir = PathBuf::from(ask("--sharedir")?);
        if !(15..=18).contains(&major) {
            bail!("{} is {version}: pg_clip runs on PostgreSQL 15 to 18", pg_config.display());
        }
        if !sharedir.join("extension/vector.control").exists() {
            bail!(
                "{version} of {} has no pgvector: install it there first (on Debian and Ubuntu: apt install \
                 postgresql-{major}-pgvector; otherwise https://github.com/pgvector/pgvector)",
                pg_config.display()
            );
        }
        let (bindir, pkglibdir) = (ask("--bindir")?.into(), ask("--pkglibdir")?.into());
        Ok(Postgres { pg_config, major, version, bindir, pkglibdir, sharedir })
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// Tells two installations apart, also two of the same major version.
    pub fn label(&self) -> String {
        format!("{}-{}", self.major, path_hash(&self.pkglibdir))
    }
}

fn major(version: &str) -> Option<u32> {
    let number = version.strip_prefix("PostgreSQL ")?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn reads_the_major_version() {
        assert_eq!(major("PostgreSQL 18.4"), Some(18));
        assert_eq!(major("PostgreSQL 15.20 (Debian 15.20-1.pgdg120+1)"), Some(15));
        assert_eq!(major("PostgreSQL 19beta1"), Some(19));
        assert_eq!(major("MariaDB 11"), None);
    }
}
