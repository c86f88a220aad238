//! The bench of `benches/peers/`: pg_clip beside the systems that people would otherwise run.
//!
//! It has an environment of its own, for it weighs 5 GB; it measures with Python and JavaScript, as the peers are.

mod packages;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build;
use crate::cluster::{Cluster, PORT};
use crate::command;
use crate::environment::Environment;
use crate::install;
use crate::lock::Lock;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::progress::step;
use crate::psql::Database;

use packages::Packages;

/// As measure.py has them; a name that is none of these is refused before anything is fetched.
const PARTS: [&str; 11] =
    ["text", "cached", "photo", "search", "bulk", "clients", "mixed", "start", "memory", "cores", "peak"];

/// Builds, installs, makes the model, and measures: all, or the parts of these names, with commas between them.
pub fn measure(
    places: &Places,
    environment: &Environment,
    postgres: &Postgres,
    part: Option<&Path>,
) -> Result<()> {
    let parts: Vec<_> = part.iter().flat_map(|parts| parts.to_str().unwrap_or_default().split(',')).collect();
    if !parts.iter().all(|part| PARTS.contains(part)) {
        bail!("the parts of the bench of the peers are {}", PARTS.join(", "));
    }
    let built = build::build(&places.workspace, environment, postgres)?;
    install::install(&places.workspace, environment, postgres, &built)?;
    let scripts = places.workspace.root.join("benches/peers");
    let work = places.base.join("peers");
    let models = work.join("models");
    // Two at a time would spoil each other's figures too.
    let _lock = Lock::take(places, "peers")?;
    let packages = Packages::ready(&scripts, &work)?;
    step("making a model of ViT-B/32's shapes, fp32 and int8 (1.4 GB)", || {
        command::output(python(&packages).arg(scripts.join("model.py")).arg(&models))
    })?;

    let settings = [
        ("shared_preload_libraries", "pg_clip"),
        ("clip.models_directory", &*models.to_string_lossy()),
        ("clip.model", "fp32"),
    ];
    let cluster = Cluster::temporary(places, postgres, &settings)?;
    Database { cluster: &cluster, name: "postgres" }
        .run("CREATE EXTENSION vector; CREATE EXTENSION pg_clip;")?;
    let mut measure = python(&packages);
    measure
        .arg(scripts.join("measure.py"))
        .arg("--work")
        .arg(&work)
        .arg("--packages")
        .arg(&packages.node)
        .args(parts)
        .env("PGHOST", cluster.sockets())
        .env("PGPORT", PORT.to_string())
        .env("PGUSER", "postgres")
        .env("PGDATABASE", "postgres");
    command::run(&mut measure)
}

/// The environment's Python, with nothing in its way that would slow the peers or send them to a network.
fn python(packages: &Packages) -> Command {
    let mut python = Command::new(&packages.python);
    for name in ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS", "PYTHONPATH"] {
        python.env_remove(name);
    }
    python.env("HF_HUB_OFFLINE", "1").env("ORT_DISABLE_TELEMETRY", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    python
}
