//! A release of Debian.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use crate::postgres::Postgres;

/// A release of Debian that packages are made for and tried in.
pub struct Debian {
    pub(super) number: u32,
    pub(super) suite: &'static str,
    /// The major version of its PostgreSQL.
    pub(super) major: u32,
    /// The later release whose pgvector is built where this one has none.
    pub(super) pgvector_from: Option<&'static str>,
    pub(super) folder: PathBuf,
}

impl Debian {
    /// Its PostgreSQL, to build for: not to run.
    pub fn postgres(&self) -> Result<Postgres> {
        Postgres::from_config(&self.pg_config())
    }

    /// The root, as a tar.
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.join("root.tar")
    }

    pub(super) fn pg_config(&self) -> PathBuf {
        self.folder.join(format!("headers/usr/lib/postgresql/{}/bin/pg_config", self.major))
    }
}

impl fmt::Display for Debian {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "Debian {}", self.number)
    }
}
