//! Running the benches of `benches/` on an installed build.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::environment::Environment;
use crate::install;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::test_run::PG_CONFIG_VARIABLE;

/// Builds, installs and measures: all, or the benches of this name, that of the queue with the model in a folder.
pub fn bench(
    places: &Places,
    environment: &Environment,
    postgres: &Postgres,
    name: Option<&str>,
    model: Option<&Path>,
) -> Result<()> {
    let built = build::build(&places.workspace, environment, postgres)?;
    install::install(&places.workspace, environment, postgres, &built)?;
    let mut benches = places.workspace.cargo();
    benches.args(["run", "--release", "--package", "pg_clip_benches"]);
    benches.arg("--").args(name);
    if let Some(model) = model {
        benches.arg(model.canonicalize().with_context(|| format!("there is no {}", model.display()))?);
    }
    let status = benches.env(PG_CONFIG_VARIABLE, &postgres.pg_config).status()?;
    if !status.success() {
        bail!("the benches failed");
    }
    Ok(())
}
