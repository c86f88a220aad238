//! The throwaway cluster behind `cargo xtask psql` and the demo: it stays, with the user's tables, until the
//! extension's SQL changes or the target folder is removed.
//!
//! Two stamps lie beside its data: `schema`, written once the extension has been created, says with which SQL;
//! `started`, written before each start, says with which files.

use std::fs;

use anyhow::Result;

use crate::build;
use crate::cluster::Cluster;
use crate::environment::Environment;
use crate::install::{self, Installed};
use crate::lock::Lock;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::progress::{say, step};
use crate::psql::Database;

pub const DATABASE: &str = "clip";

const SETTINGS: [(&str, &str); 1] = [("shared_preload_libraries", "pg_clip")];

/// The cluster of this PostgreSQL, in whatever state it is.
pub fn find(places: &Places, postgres: &Postgres) -> Cluster {
    Cluster::at(places, postgres, places.base.join(format!("cluster-{}", postgres.label())))
}

/// The cluster, running with the extension as the checkout has it now.
pub fn ready(places: &Places, environment: &Environment, postgres: &Postgres) -> Result<Cluster> {
    let built = build::build_without_feeder(&places.workspace, environment, postgres)?;
    let _lock = Lock::take(places, "cluster")?;
    let installed = install::install(&places.workspace, environment, postgres, &built)?;
    let cluster = find(places, postgres);
    match fs::read_to_string(cluster.directory().join("schema")) {
        Ok(schema) if schema == installed.schema => run(&cluster, &installed)?,
        Ok(_) => {
            say("the extension's SQL has changed: making the throwaway cluster anew");
            make(places, &cluster, &installed)?;
        }
        Err(_) => make(places, &cluster, &installed)?,
    }
    Ok(cluster)
}

fn make(places: &Places, cluster: &Cluster, installed: &Installed) -> Result<()> {
    cluster.create(places)?;
    run(cluster, installed)?;
    Database { cluster, name: "postgres" }.run(&format!("CREATE DATABASE {DATABASE}"))?;
    Database { cluster, name: DATABASE }.run("CREATE EXTENSION vector; CREATE EXTENSION pg_clip;")?;
    fs::write(cluster.directory().join("schema"), &installed.schema)?;
    Ok(())
}

fn run(cluster: &Cluster, installed: &Installed) -> Result<()> {
    let stamp = cluster.directory().join("started");
    let running = cluster.is_running()?;
    if running && fs::read_to_string(&stamp).is_ok_and(|files| files == installed.files) {
        return Ok(());
    }
    cluster.configure(&SETTINGS)?;
    step("starting PostgreSQL", || if running { cluster.restart() } else { cluster.start() })?;
    fs::write(&stamp, &installed.files)?;
    Ok(())
}
