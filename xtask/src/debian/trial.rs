//! Trying packages where they are meant to run: in a bare Debian, as an image, and in an image that a user makes of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::dockerfile::Dockerfile;
use super::{Debian, Root, server, set_up};
use crate::package::{made, unpack_image};
use crate::places::Places;

/// In the root, by Debian's own tools.
const TRIAL: &str = include_str!("trial.sh");

/// Of the image that a Dockerfile begins with.
const ENTRY_POINT: &str = include_str!("entrypoint.sh");

/// Installs the packages of a folder in a bare root, uses and purges them, then runs the image of the server, and
/// the image of the Dockerfile of `examples/container`.
pub fn try_packages(places: &Places, debian: &Debian, packages: &Path) -> Result<()> {
    let folder = places.base.join(format!("temporary-{}-debian", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let tried = within(places, debian, packages, &folder);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    tried
}

fn within(places: &Places, debian: &Debian, packages: &Path, folder: &Path) -> Result<()> {
    let photos = places.workspace.root.join("models/demo/photos");
    let root = Root::unpack(debian, &folder.join("root"))?;
    let to = root.path().join("trial");
    fs::create_dir(&to)?;
    for start in ["pg-clip-embedder_", "postgresql-"] {
        let package = made(packages, start, ".deb")?;
        fs::copy(&package, to.join(package.file_name().unwrap_or_default()))?;
    }
    server::copy_photos(&photos, &to)?;
    println!("{debian}, bare, with PostgreSQL {}", debian.major);
    root.show(TRIAL, &[&debian.major.to_string()]).context("the packages do not do what they should")?;
    drop(root);

    println!("\nThe image of a server");
    let root = Root::empty(&folder.join("image"))?;
    let configuration = unpack_image(&made(packages, "pg_clip-", "-server.oci.tar")?, root.path())?;
    server::run(&root, &configuration, &photos).context("the image does not do what it should")?;
    drop(root);

    println!("\n{DOCKERFILE}, on {debian} in place of the image that it begins with");
    let root = Root::unpack(debian, &folder.join("container"))?;
    container(places, debian, &root, &photos).context("the Dockerfile does not make what it should")
}

const DOCKERFILE: &str = "examples/container/Dockerfile";

/// Takes the steps of the Dockerfile in a root, and runs its command as a container does.
fn container(places: &Places, debian: &Debian, root: &Root, photos: &Path) -> Result<()> {
    let checkout = &places.workspace.root;
    let text = fs::read_to_string(checkout.join(DOCKERFILE))?;
    let arguments = [("MAJOR", debian.major.to_string()), ("DEBIAN", debian.suite.to_owned())];
    let dockerfile = Dockerfile::parse(&text, &arguments)?;
    let image = format!("postgres:{}-{}", debian.major, debian.suite);
    ensure!(dockerfile.from == image, "it begins with {} and not with {image}", dockerfile.from);
    set_up::resolve_names(root)?;
    dockerfile.build(root, checkout)?;
    let entry_point = "/usr/local/bin/entrypoint";
    let script = root.path().join(entry_point.trim_start_matches('/'));
    fs::write(&script, ENTRY_POINT)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    server::link_programs(root, debian.major)?;
    let mut start = vec![entry_point.to_owned()];
    start.extend(dockerfile.command);
    let environment = server::VARIABLES.map(|(name, value)| format!("{name}={value}"));
    let configuration = json!({ "config": { "User": "postgres", "Env": environment, "Entrypoint": start } });
    server::run(root, &configuration, photos)
}
