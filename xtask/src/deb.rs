//! Making a package of Debian.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::install::{beneath, put_all};
use crate::layout::Entry;

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
