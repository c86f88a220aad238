//! Running the image of a server as a container is run: its entry point is the first process, by the image's user.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Root;
use crate::command;

/// Beside the container, as an engine and a client.
const SCRIPT: &str = include_str!("server.sh");

/// Runs the root with the configuration of its image.
pub(super) fn run(root: &Root, configuration: &Value, photos: &Path) -> Result<()> {
    copy_photos(photos, &root.path().join("tmp"))?;
    let configuration = &configuration["config"];
    let texts = |name: &str| -> Vec<&str> {
        let values = configuration[name].as_array().map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(Value::as_str).collect()
    };
    let user = configuration["User"].as_str().context("the image names no user")?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh"]);
    unshare.arg(root.path()).arg(user).args(texts("Env")).args(texts("Entrypoint"));
    command::run(unshare.stdin(Stdio::null()))
}

/// Puts PostgreSQL's programs where the PATH of an image leads, and makes its data directory.
pub(crate) fn link_programs(root: &Root, major: u32) -> Result<()> {
    root.run(&format!(
        "ln -s /usr/lib/postgresql/{major}/bin /usr/local/lib/postgresql\n\
         install --directory --owner=postgres --group=postgres --mode=0700 {DATA}\n"
    ))?;
    Ok(())
}

/// The variables of an image of the server.
pub(crate) const VARIABLES: [(&str, &str); 3] = [
    ("PATH", "/usr/local/lib/postgresql:/usr/local/bin:/usr/bin:/bin"),
    ("LANG", "C.UTF-8"),
    ("PGDATA", DATA),
];

/// Where the data of an image's server are.
pub(crate) const DATA: &str = "/var/lib/postgresql/data";

/// Copies some photos of the demo, a pizza among them.
pub(super) fn copy_photos(from: &Path, to: &Path) -> Result<()> {
    for name in ["pizza-1.jpg", "dog-1.jpg", "guitar-1.jpg", "bicycle-1.jpg"] {
        fs::copy(from.join(name), to.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
