//! A freshly made data directory for each PostgreSQL, copied for every new cluster: initdb takes ten times as long.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::lock::Lock;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::progress;

/// The file of a cluster's own settings, included by the postgresql.conf of the template.
pub const SETTINGS_FILE: &str = "pg_clip.conf";

/// Makes `data` a new data directory that the servers' user owns; its folder is there already.
pub fn copy(places: &Places, postgres: &Postgres, data: &Path) -> Result<()> {
    let template = ready(places, postgres)?;
    command::output(Command::new("cp").arg("-a").arg(template).arg(data))?;
    Ok(())
}

/// The template of this PostgreSQL, after making it where it is not there yet.
pub fn ready(places: &Places, postgres: &Postgres) -> Result<PathBuf> {
    let template = places.base.join(format!("template-{}", postgres.label()));
    if template.exists() {
        return Ok(template);
    }
    let _lock = Lock::take(places, "template")?;
    if !template.exists() {
        make(places, postgres, &template)?;
    }
    Ok(template)
}

fn make(places: &Places, postgres: &Postgres, template: &Path) -> Result<()> {
    let beside = template.with_extension("partial");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
    places.account.give(&beside)?;
    progress::step(&format!("making a data directory for {}", postgres.version), || {
        initdb(places, postgres, &beside, &[])
    })?;
    fs::rename(&beside, template)?;
    Ok(())
}

/// A data directory that pg_upgrade can fill from one of a PostgreSQL before 18, whose initdb wrote no checksums.
pub(crate) fn make_without_checksums(places: &Places, postgres: &Postgres, data: &Path) -> Result<()> {
    let options: &[&str] = if postgres.major < 18 { &[] } else { &["--no-data-checksums"] };
    initdb(places, postgres, data, options)
}

/// Fills a folder that is there or that the servers' user can make.
fn initdb(places: &Places, postgres: &Postgres, data: &Path, options: &[&str]) -> Result<()> {
    command::output(
        places
            .account
            .command(postgres.program("initdb"))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(options)
            .arg("--pgdata")
            .arg(data),
    )?;
    let configuration = data.join("postgresql.conf");
    let given = fs::read_to_string(&configuration)?;
    fs::write(&configuration, format!("{given}\ninclude_if_exists = '{SETTINGS_FILE}'\n"))?;
    Ok(())
}
