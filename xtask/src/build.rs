//! Building the extension, the embedder, the installer of its models, and the feeder.
//!
//! pgrx takes the server's headers from PGRX_PG_CONFIG_PATH, so `cargo pgrx init` is not needed; the libclang of the
//! environment has no built-in headers and is given the compiler's.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::environment::Environment;
use crate::postgres::Postgres;
use crate::workspace::Workspace;

/// The files that a build made, where cargo says it put them.
pub struct Built {
    pub library: PathBuf,
    pub embedder: PathBuf,
    /// The program that installs models, which lies beside the embedder.
    pub models: PathBuf,
    /// Where it was wanted.
    pub feeder: Option<PathBuf>,
}

pub fn build(workspace: &Workspace, environment: &Environment, postgres: &Postgres) -> Result<Built> {
    let built = build_without_feeder(workspace, environment, postgres)?;
    let messages = messages(&mut of_feeder(workspace))?;
    Ok(Built { feeder: Some(artifact(&messages, "pg_clip_feeder", "bin")?), ..built })
}

/// The parts that a server needs: without the feeder, whose clients of HTTP and of PostgreSQL no other part is
/// built of.
pub fn build_without_feeder(
    workspace: &Workspace,
    environment: &Environment,
    postgres: &Postgres,
) -> Result<Built> {
    let messages = messages(&mut of_server(workspace, environment, postgres)?)?;
    Ok(Built {
        library: artifact(&messages, "pg_clip", "cdylib")?,
        embedder: artifact(&messages, "pg_clip_embedder", "bin")?,
        models: artifact(&messages, "pg_clip_models", "bin")?,
        feeder: None,
    })
}

/// The build of the extension, the embedder and the installer of models in one go: their common crates are built once, and no processor waits while the bindings
/// to PostgreSQL are made.
fn of_server(workspace: &Workspace, environment: &Environment, postgres: &Postgres) -> Result<Command> {
    let mut server = workspace.cargo();
    server.args(["build", "--release", "--package", "pg_clip_embedder", "--package", "pg_clip_models"]);
    for_extension(&mut server, environment, postgres)?;
    Ok(server)
}

/// The build of the feeder.
fn of_feeder(workspace: &Workspace) -> Command {
    let mut feeder = workspace.cargo();
    feeder.args(["build", "--release", "--package", "pg_clip_feeder"]);
    feeder
}

/// Points a cargo command at the extension and at one PostgreSQL.
pub fn for_extension(cargo: &mut Command, environment: &Environment, postgres: &Postgres) -> Result<()> {
    let headers = command::output(Command::new("gcc").arg("-print-file-name=include"))?;
    cargo
        .args(["--package", "pg_clip", "--no-default-features"])
        .args(["--features", &format!("pg_clip/pg{}", postgres.major)])
        .env("PGRX_PG_CONFIG_PATH", &postgres.pg_config)
        .env("LIBCLANG_PATH", environment.libclang())
        // bindgen splits it as a shell would.
        .env("BINDGEN_EXTRA_CLANG_ARGS", format!("'-I{}'", headers.trim_end()));
    Ok(())
}

/// Runs a cargo build, whose progress goes to standard error, and returns its message about each file that it made.
fn messages(cargo: &mut Command) -> Result<String> {
    cargo.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = cargo.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the build failed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn artifact(messages: &str, name: &str, kind: &str) -> Result<PathBuf> {
    find_artifact(messages, name, kind).with_context(|| format!("cargo names no {kind} of {name}"))
}

fn find_artifact(messages: &str, name: &str, kind: &str) -> Option<PathBuf> {
    let is_it = |message: &serde_json::Value| {
        let target = &message["target"];
        message["reason"] == "compiler-artifact"
            && target["name"] == name
            && target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|each| each == kind))
    };
    let mut messages =
        messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let artifact = messages.find(is_it)?;
    Some(PathBuf::from(artifact["filenames"][0].as_str()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::find_artifact;

    #[test]
    fn finds_the_artifact_of_that_name_and_kind() {
        let messages = concat!(
            r#"{"reason":"build-script-executed"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"wire","kind":["lib"]},"filenames":["/t/libwire.rlib"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"pg_clip","kind":["cdylib"]},"filenames":["/t/a b.so"]}"#,
            "\n",
        );
        assert_eq!(find_artifact(messages, "pg_clip", "cdylib").as_deref(), Some(Path::new("/t/a b.so")));
        assert_eq!(find_artifact(messages, "pg_clip", "bin"), None);
    }
}
