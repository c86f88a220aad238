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

/// What a build made, where cargo says it put it.
pub struct Built {
    pub library: PathBuf,
    pub embedder: PathBuf,
    /// What installs models, and lies beside the embedder.
    pub models: PathBuf,
    /// Where it was wanted.
    pub feeder: Option<PathBuf>,
}

pub fn build(workspace: &Workspace, environment: &Environment, postgres: &Postgres) -> Result<Built> {
    let built = build_without_feeder(workspace, environment, postgres)?;
    let mut feeder = workspace.cargo();
    feeder.args(["build", "--release", "--package", "pg_clip_feeder"]);
    Ok(Built { feeder: Some(artifact(&mut feeder, "pg_clip_feeder", "bin")?), ..built })
}

/// What a server needs: without the feeder, whose clients of HTTP and of PostgreSQL nothing else is built of.
pub fn build_without_feeder(
    workspace: &Workspace,
    environment: &Environment,
    postgres: &Postgres,
) -> Result<Built> {
    let mut extension = workspace.cargo();
    extension.args(["build", "--release"]);
    for_extension(&mut extension, environment, postgres)?;
    // Without the extension, so that they have the features that their tests are built with; together, so that the library
    // of the embedder is built once.
    let programs = || {
        let mut programs = workspace.cargo();
        programs.args(["build", "--release", "--package", "pg_clip_embedder", "--package", "pg_clip_models"]);
        programs
    };
    Ok(Built {
        library: artifact(&mut extension, "pg_clip", "cdylib")?,
        embedder: artifact(&mut programs(), "pg_clip_embedder", "bin")?,
        models: artifact(&mut programs(), "pg_clip_models", "bin")?,
        feeder: None,
    })
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

/// Runs a cargo build, whose progress goes to standard error, and returns the path of what it made.
fn artifact(cargo: &mut Command, name: &str, kind: &str) -> Result<PathBuf> {
    cargo.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = cargo.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the build of {name} failed");
    }
    find_artifact(&String::from_utf8_lossy(&output.stdout), name, kind)
        .with_context(|| format!("cargo names no {kind} of {name}"))
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
