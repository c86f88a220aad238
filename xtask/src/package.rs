//! Packages of one build: Debian's, and an archive that runs from wherever it is unpacked.
//!
//! Each is packed from a staged tree of the files that `install` puts into a PostgreSQL. Debian's packages are two: the
//! library and the SQL for one major, and the programs with ONNX Runtime and the demo model for all of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::build::Built;
use crate::command;
use crate::environment::Environment;
use crate::install::{beneath, put_all};
use crate::layout::{self, Entry, Layout};
use crate::postgres::Postgres;
use crate::schema;
use crate::workspace::Workspace;

/// Makes the packages and returns their folder, which holds nothing else.
pub fn package(
    workspace: &Workspace,
    environment: &Environment,
    postgres: &Postgres,
    built: &Built,
) -> Result<PathBuf> {
    let folder = workspace.target.join(format!("packages/{}", postgres.major));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let staging = folder.join("staging");
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    let release = Release::of(workspace, postgres, built, environment)?;
    let mut made = debian(workspace, environment, built, &release, &staging)?;
    made.push(archive(workspace, environment, built, &release, &staging)?);
    let mut sums = String::new();
    for package in made {
        let digest = Sha256::digest(fs::read(&package)?);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sums += &format!("{digest}  {name}\n");
        fs::rename(&package, folder.join(name))?;
    }
    fs::write(folder.join("SHA256SUMS"), sums)?;
    fs::remove_dir_all(&staging)?;
    Ok(folder)
}

struct Release {
    major: u32,
    version: String,
    /// As Debian names it.
    architecture: &'static str,
    /// The oldest release of glibc that has every symbol of the built files.
    glibc: String,
}

impl Release {
    fn of(
        workspace: &Workspace,
        postgres: &Postgres,
        built: &Built,
        environment: &Environment,
    ) -> Result<Release> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => bail!("no packages are made for {other}"),
        };
        let mut glibc = (2, 0);
        let files = [&built.library, &built.embedder, &environment.runtime().library];
        for file in files.into_iter().chain(&built.feeder) {
            glibc = glibc.max(newest_glibc(&fs::read(file)?));
        }
        let version = schema::version(&workspace.root.join("pg_clip.control"))?;
        Ok(Release {
            major: postgres.major,
            version,
            architecture,
            glibc: format!("{}.{}", glibc.0, glibc.1),
        })
    }
}

/// The newest version of glibc whose symbols a file names, as GLIBC_2.34.
fn newest_glibc(file: &[u8]) -> (u32, u32) {
    const PREFIX: &[u8] = b"GLIBC_";
    let names = file.windows(PREFIX.len()).enumerate().filter(|(_, window)| *window == PREFIX);
    let versions = names.filter_map(|(at, _)| {
        let name = file[at + PREFIX.len()..].split(|byte| *byte == 0).next()?;
        let (major, minor) = std::str::from_utf8(name).ok()?.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    });
    versions.max().unwrap_or((2, 0))
}

fn debian(
    workspace: &Workspace,
    environment: &Environment,
    built: &Built,
    release: &Release,
    staging: &Path,
) -> Result<Vec<PathBuf>> {
    let Release { major, version, glibc, .. } = release;
    let server = format!("postgresql/{major}");
    let documents = Path::new("/usr/share/doc");
    let layout = Layout {
        library: Path::new("/usr/lib").join(&server).join("lib"),
        extension: Path::new("/usr/share").join(&server).join("extension"),
        programs: "/usr/lib/pg_clip".into(),
        // Models are added there.
        models: "/var/lib/pg_clip/models".into(),
        licences: documents.join("pg-clip-embedder"),
        commands: "/usr/bin".into(),
    };
    let extension = Debian {
        name: format!("postgresql-{major}-pg-clip"),
        entries: layout::of_extension(workspace, &built.library, &layout)?,
        depends: format!(
            "postgresql-{major}, postgresql-{major}-pgvector, pg-clip-embedder (= {version}), libc6 (>= {glibc})"
        ),
        description: format!("CLIP embeddings of images and texts, computed in PostgreSQL {major}"),
        after_removal: None,
    };
    let embedder = Debian {
        name: "pg-clip-embedder".to_owned(),
        entries: layout::of_embedder(workspace, built, environment.runtime(), &layout)?,
        depends: format!("libc6 (>= {glibc}), libstdc++6, libgcc-s1"),
        description: "the embedder of pg_clip, with ONNX Runtime and a demo model".to_owned(),
        after_removal: Some(
            "#!/bin/sh\nset -e\nif [ \"$1\" = purge ]; then rm -rf /var/lib/pg_clip; fi\n".to_owned(),
        ),
    };
    [extension, embedder].iter().map(|package| package.make(workspace, release, staging)).collect()
}

struct Debian {
    name: String,
    entries: Vec<Entry>,
    depends: String,
    description: String,
    /// A script of the shell.
    after_removal: Option<String>,
}

impl Debian {
    fn make(&self, workspace: &Workspace, release: &Release, staging: &Path) -> Result<PathBuf> {
        let Release { version, architecture, .. } = release;
        let root = staging.join(&self.name);
        put_all(&self.entries, &root)?;
        let copyright = beneath(&root, Path::new("/usr/share/doc")).join(&self.name).join("copyright");
        fs::create_dir_all(copyright.parent().unwrap_or(&root))?;
        fs::copy(workspace.root.join("LICENSE"), &copyright)?;
        fs::set_permissions(&copyright, fs::Permissions::from_mode(0o644))?;
        let size = command::output(Command::new("du").args(["-sk", "--apparent-size"]).arg(&root))?;
        let size = size.split_whitespace().next().unwrap_or("0");
        let Debian { name, depends, description, .. } = self;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The authors of pg_clip <pg_clip@example.invalid>\n\
             Section: database\nPriority: optional\nInstalled-Size: {size}\nDepends: {depends}\nDescription: {description}\n"
        );
        let scripts = root.join("DEBIAN");
        fs::create_dir_all(&scripts)?;
        fs::write(scripts.join("control"), control)?;
        if let Some(script) = &self.after_removal {
            let path = scripts.join("postrm");
            fs::write(&path, script)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let package = staging.join(format!("{name}_{version}_{architecture}.deb"));
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--root-owner-group", "--build"]).arg(&root).arg(&package);
        command::output(&mut dpkg)
            .context("a package of Debian needs dpkg-deb, which is in the package dpkg")?;
        Ok(package)
    }
}

fn archive(
    workspace: &Workspace,
    environment: &Environment,
    built: &Built,
    release: &Release,
    staging: &Path,
) -> Result<PathBuf> {
    let Release { major, version, architecture, .. } = release;
    let name = format!("pg_clip-{version}-postgresql-{major}-linux-{architecture}");
    let top = Path::new("/").join(&name);
    let share = top.join("share");
    let layout = Layout {
        library: top.join("lib"),
        extension: share.join("extension"),
        programs: top.join("lib/pg_clip"),
        models: share.join("pg_clip/models"),
        licences: top.join("licences"),
        commands: top.join("bin"),
    };
    let root = staging.join("archive");
    put_all(&layout::of_both(workspace, built, environment.runtime(), &layout)?, &root)?;
    let archive = staging.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--create", "--gzip", "--file"]);
    command::output(tar.arg(&archive).arg("--directory").arg(&root).arg(&name))?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::newest_glibc;

    #[test]
    fn reads_the_newest_glibc() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.9\0"), (2, 34));
        assert_eq!(newest_glibc(b"nothing"), (2, 0));
    }
}
