//! The rules of the house: formatting, clippy without a warning in any crate, and, where cargo-deny is installed, the
//! licences, duplicates and sources of the crates that are used.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::clients;
use crate::command;
use crate::environment::Environment;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::progress::say;
use crate::workspace::Workspace;

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
    command::run(extension.args(["--", "--deny=warnings"]))?;
    deny(workspace)
}

/// Checks the crates against `deny.toml`. The database of advisories needs a network beyond the registry's.
fn deny(workspace: &Workspace) -> Result<()> {
    if command::status_if_present(Command::new("cargo-deny").arg("--version"))?.is_none() {
        say("not run: cargo deny, which is not on the PATH (cargo install cargo-deny --locked)");
        return Ok(());
    }
    command::run(workspace.cargo().args(["deny", "--workspace", "check", "bans", "licenses", "sources"]))
}
