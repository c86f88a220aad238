//! A bare Debian: a release of Debian without a compiler, with its own PostgreSQL and with pgvector.
//!
//! Its root is made once, by debootstrap, and kept as an archive; beside it lie the headers that a build for its
//! PostgreSQL needs. A program in the root has processes and mounts of its own, which end with it.

mod dockerfile;
mod release;
mod root;
mod server;
mod set_up;
mod trial;

use anyhow::{Result, bail};

use crate::lock::Lock;
use crate::places::Places;

pub use release::Debian;
pub(crate) use root::Root;
pub(crate) use server::{DATA, VARIABLES, link_programs};
pub use trial::try_packages;

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
}
