//! The rules of the house: formatting, and clippy without a warning in any crate.

use anyhow::Result;

use crate::build;
use crate::command;
use crate::environment::Environment;
use crate::places::Places;
use crate::postgres::Postgres;

pub fn lint(places: &Places, environment: &Environment, postgres: &Postgres) -> Result<()> {
    let workspace = &places.workspace;
    command::run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    command::run(workspace.cargo().args(["clippy", "--all-targets", "--", "--deny=warnings"]))?;
    let mut extension = workspace.cargo();
    extension.arg("clippy");
    build::for_extension(&mut extension, environment, postgres)?;
    command::run(extension.args(["--", "--deny=warnings"]))
}
