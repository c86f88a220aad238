//! Trying packages where they are meant to run: in a bare Debian, and as an image.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Debian, Root, server};
use crate::package::{made, unpack_image};
use crate::places::Places;

/// In the root, by Debian's own tools.
const TRIAL: &str = include_str!("trial.sh");

/// Installs the packages of a folder in a bare root, uses and purges them, then runs the image of the server.
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
    server::run(&root, &configuration, &photos).context("the image does not do what it should")
}
