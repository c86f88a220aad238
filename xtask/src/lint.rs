//! The rules of the house: formatting, and clippy without a warning in any crate.

use anyhow::Result;

use crate::build;
use crate::clients;
use crate::command;
use crate::environment::Environment;
use crate::places::Places;
use crate::postgres::Postgres;

pub fn lint(places: &Places, environment: &Environment, postgres: &Postgres) -> Result<()> {
    let workspace = &places.workspace;
    command::run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    // The fuzz targets are a workspace of their own.
    command::run(workspace.cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "--all-targets", "--features", &clients::FEATURES.join(",")]);
    command::run(clippy.args(["--", "--deny=warnings"]))?;
    let mut extension = workspace.cargo();
    extension.arg("clippy");
    build::for_extension(&mut extension, environment, postgres)?;
    command::run(extension.args(["--", "--deny=warnings"]))
}
