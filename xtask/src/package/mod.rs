//! Packages of one build: Debian's, an archive that runs from wherever it is unpacked, and images for containers.
//!
//! Each is packed from a staged tree of the files that `install` puts into a PostgreSQL. Beside them lie a bill of
//! materials of the built files, the sources as PGXN takes them, and the checksums of all.

mod bill;
mod crates;
mod deb;
mod image;
mod licences;
mod parts;
mod release;
mod source;
mod tar;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::Built;
use crate::command;
use crate::debian::{DATA, Debian, Root, VARIABLES, link_programs};
use crate::environment::Environment;
use crate::install::put_all;
use crate::layout::Layout;
use crate::postgres::Postgres;
use crate::progress::step;
use crate::workspace::Workspace;

use crates::Crate;
use image::{Configuration, Image};
use parts::{Parts, files};
use release::Release;
use tar::tar;

pub(crate) use deb::install as install_debs;
pub use image::unpack as unpack_image;

/// Makes the packages and returns their folder, which holds nothing else. A `debian` is the one whose PostgreSQL the
/// build is for: its server becomes an image too.
pub fn package(
    workspace: &Workspace,
    environment: &Environment,
    postgres: &Postgres,
    built: &Built,
    debian: Option<&Debian>,
) -> Result<PathBuf> {
    let folder = workspace.target.join(format!("packages/{}", postgres.major));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let staging = folder.join("staging");
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    let crates = crates::linked(workspace, postgres.major)?;
    let parts = Parts {
        workspace,
        environment,
        built,
        release: Release::of(workspace, postgres, built, environment)?,
        licences: licences::write(&crates, &staging)?,
    };
    let debs = deb::make(&parts, &staging)?;
    let mut made = debs.clone();
    made.push(archive(&parts, &staging)?);
    made.push(volume(&parts, &staging)?);
    if let Some(debian) = debian {
        made.push(server(&parts, debian, &debs, &staging)?);
    }
    made.push(bill(&parts, &crates, &staging)?);
    made.extend(source::zip(workspace, &parts.release, &staging)?);
    let made = made.iter().map(|file| publish(file, &folder)).collect::<Result<Vec<_>>>()?;
    let mut sums = Command::new("sha256sum");
    sums.args(made).current_dir(&folder);
    fs::write(folder.join("SHA256SUMS"), command::output(&mut sums)?)?;
    fs::remove_dir_all(&staging)?;
    Ok(folder)
}

/// The package in the folder whose name begins like this.
pub(crate) fn made(folder: &Path, start: &str, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let found = entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    });
    found.with_context(|| format!("there is no {start}…{end} in {}", folder.display()))
}

/// Moves a finished package into the folder; returns its name.
fn publish(file: &Path, folder: &Path) -> Result<PathBuf> {
    let name = PathBuf::from(file.file_name().context("a package has a name")?);
    fs::rename(file, folder.join(&name))?;
    Ok(name)
}

/// The folders of an own root, in which the library finds the rest wherever the root lies.
fn own_folders(top: &Path, licences: &str) -> Layout {
    let share = top.join("share");
    Layout {
        library: top.join("lib"),
        extension: share.join("extension"),
        programs: top.join("lib/pg_clip"),
        models: share.join("pg_clip/models"),
        licences: top.join(licences),
        commands: top.join("bin"),
    }
}

fn archive(parts: &Parts, staging: &Path) -> Result<PathBuf> {
    let name = parts.release.name();
    let root = staging.join("archive");
    put_all(&files(parts, &own_folders(&Path::new("/").join(&name), "licences"))?, &root)?;
    let archive = staging.join(format!("{name}.tar.gz"));
    let mut tar = tar();
    command::output(
        tar.args(["--owner=0", "--group=0", "--gzip", "--file"])
            .arg(&archive)
            .arg("--directory")
            .arg(&root)
            .arg(&name),
    )?;
    Ok(archive)
}

/// An image without a system, to be mounted as a read-only volume beside a server.
fn volume(parts: &Parts, staging: &Path) -> Result<PathBuf> {
    let root = staging.join("volume");
    put_all(&files(parts, &own_folders(Path::new("/"), "licenses"))?, &root)?;
    let layer = staging.join("volume.tar");
    let mut tar = tar();
    tar.args(["--owner=0", "--group=0", "--file"]).arg(&layer).arg("--directory").arg(&root);
    command::output(tar.args(["bin", "lib", "licenses", "share"]))?;
    let image = Image {
        tag: format!("pg_clip:{}-postgresql-{}-volume", parts.release.version, parts.release.major),
        title: format!("pg_clip for PostgreSQL {}, to be mounted as a volume", parts.release.major),
        layers: vec![layer],
        configuration: Configuration::default(),
    };
    image.write(&parts.release, "volume", staging)
}

/// An image that runs Debian's PostgreSQL with pg_clip: the release of Debian below, the packages above.
fn server(parts: &Parts, debian: &Debian, debs: &[PathBuf], staging: &Path) -> Result<PathBuf> {
    let Release { major, version, .. } = &parts.release;
    let top = staging.join("server.tar");
    step("installing the packages in an image", || -> Result<()> {
        let root = Root::unpack(debian, &staging.join("server"))?;
        let before = staging.join("before");
        fs::write(&before, "")?;
        install_debs(&root, debs)?;
        let start = root.path().join("usr/local/bin/start-postgresql");
        fs::write(&start, START)?;
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
        link_programs(&root, *major)?;
        changes(&root, &before, &top)
    })?;
    let image = Image {
        tag: format!("pg_clip:{version}-postgresql-{major}"),
        title: format!("PostgreSQL {major} of {debian} with pg_clip"),
        layers: vec![debian.archive(), top],
        configuration: Configuration {
            user: "postgres",
            entrypoint: &["/usr/local/bin/start-postgresql"],
            environment: &VARIABLES,
            volume: Some(DATA),
            port: Some("5432/tcp"),
            stop_signal: Some("SIGINT"),
        },
    };
    image.write(&parts.release, "server", staging)
}

const START: &str = include_str!("start-postgresql.sh");

/// Packs the files that were made or changed in a root since a file was written.
fn changes(root: &Root, since: &Path, to: &Path) -> Result<()> {
    let mut find = Command::new("find");
    find.args([".", "-mindepth", "1", "-cnewer"]).arg(since).current_dir(root.path());
    let list = to.with_extension("list");
    let found = command::output(&mut find)?;
    let mut names: Vec<&str> = found.lines().filter(|name| !scratch(name)).collect();
    names.sort_unstable();
    fs::write(&list, names.join("\n"))?;
    let mut tar = tar();
    tar.args(["--no-recursion", "--file"]).arg(to).arg("--directory").arg(root.path());
    command::output(tar.arg("--files-from").arg(&list)).map(drop)
}

/// Whether a path of an image is of no use in it.
fn scratch(path: &str) -> bool {
    ["./dev/", "./proc/", "./sys/", "./tmp/", "./var/cache/", "./var/log/", "./packages/"]
        .iter()
        .any(|folder| path.starts_with(folder))
        || path.ends_with("-old")
}

fn bill(parts: &Parts, crates: &[Crate], staging: &Path) -> Result<PathBuf> {
    let path = staging.join(format!("{}.cdx.json", parts.release.name()));
    let bill = bill::of(crates, parts.environment.runtime(), &parts.release)?;
    fs::write(&path, serde_json::to_string_pretty(&bill)? + "\n")?;
    Ok(path)
}
