//! Debian's packages: the library and the SQL for one major, and the programs with ONNX Runtime and the demo model for
//! all of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::release::Release;
use super::{Parts, shared_files};
use crate::command;
use crate::debian::Root;
use crate::install::{beneath, put_all};
use crate::layout::{self, Entry, Layout};

/// Makes the packages of pg_clip in the folder, and returns their paths.
pub(super) fn make(parts: &Parts, staging: &Path) -> Result<Vec<PathBuf>> {
    let Release { major, version, glibc, architecture } = &parts.release;
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
    let extension = Deb {
        name: format!("postgresql-{major}-pg-clip"),
        entries: layout::of_extension(parts.workspace, &parts.built.library, &layout)?,
        depends: format!(
            "postgresql-{major}, postgresql-{major}-pgvector, pg-clip-embedder (= {version}), libc6 (>= {glibc})"
        ),
        description: format!("CLIP embeddings of images and texts, computed in PostgreSQL {major}"),
        after_removal: None,
    };
    let embedder = Deb {
        name: "pg-clip-embedder".to_owned(),
        entries: shared_files(parts, &layout)?,
        depends: format!("libc6 (>= {glibc}), libstdc++6, libgcc-s1"),
        description: "the embedder of pg_clip, with ONNX Runtime and a demo model".to_owned(),
        after_removal: Some(
            "#!/bin/sh\nset -e\nif [ \"$1\" = purge ]; then rm -rf /var/lib/pg_clip; fi\n".to_owned(),
        ),
    };
    let copyright = parts.workspace.root.join("LICENSE");
    [extension, embedder]
        .iter()
        .map(|package| package.make(version, architecture, &copyright, staging))
        .collect()
}

/// Installs packages in a root, whose own packages have all that they depend on.
pub(crate) fn install(root: &Root, debs: &[PathBuf]) -> Result<()> {
    let folder = root.path().join("packages");
    fs::create_dir_all(&folder)?;
    for deb in debs {
        fs::copy(deb, folder.join(deb.file_name().unwrap_or_default()))?;
    }
    root.run("apt-get install --yes --quiet=2 /packages/*.deb\n")?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A package, before it is made.
pub(crate) struct Deb {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) depends: String,
    pub(crate) description: String,
    /// A script of the shell.
    pub(crate) after_removal: Option<String>,
}

impl Deb {
    /// Makes the package in the folder, under the licence in a file, and returns its path.
    pub(crate) fn make(
        &self,
        version: &str,
        architecture: &str,
        copyright: &Path,
        staging: &Path,
    ) -> Result<PathBuf> {
        let root = staging.join(&self.name);
        put_all(&self.entries, &root)?;
        let documents = beneath(&root, Path::new("/usr/share/doc")).join(&self.name);
        fs::create_dir_all(&documents)?;
        fs::copy(copyright, documents.join("copyright"))?;
        fs::set_permissions(documents.join("copyright"), fs::Permissions::from_mode(0o644))?;
        let size = command::output(Command::new("du").args(["-sk", "--apparent-size"]).arg(&root))?;
        let size = size.split_whitespace().next().unwrap_or("0");
        let Deb { name, depends, description, .. } = self;
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
