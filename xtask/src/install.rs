//! Installing into a PostgreSQL, where the server finds everything without a setting.
//!
//! A running server has these files mapped: each is copied beside its place and renamed, never written in place, and
//! one that is already the same is left alone.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::build::Built;
use crate::environment::Environment;
use crate::layout::{self, Content, Entry, Layout};
use crate::postgres::Postgres;
use crate::workspace::Workspace;

/// The state of the installed files.
pub struct Installed {
    /// Changes when any file does.
    pub files: String,
    /// Changes when the SQL of the extension does.
    pub schema: String,
}

pub fn install(
    workspace: &Workspace,
    environment: &Environment,
    postgres: &Postgres,
    built: &Built,
) -> Result<Installed> {
    let entries = layout::of_both(workspace, built, environment.runtime(), &Layout::of(postgres))?;
    put_all(&entries, Path::new("/"))?;
    let sql =
        entries.iter().filter(|entry| entry.path.parent() == Some(&postgres.sharedir.join("extension")));
    Ok(Installed { files: stamp(&entries)?, schema: digest(sql.map(|entry| &entry.path))? })
}

/// Puts each file into its place beneath `root`.
pub fn put_all(entries: &[Entry], root: &Path) -> Result<()> {
    entries.iter().try_for_each(|entry| put(entry, &beneath(root, &entry.path)))
}

/// Where a path lies once it is staged beneath `root`.
pub fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn put(entry: &Entry, to: &Path) -> Result<()> {
    let put = match &entry.content {
        Content::Link(target) if fs::read_link(to).is_ok_and(|present| present == *target) => Ok(()),
        Content::Link(target) => replace(to, |beside| symlink(target, beside)),
        Content::Copy { from, mode } => {
            let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            let whole = |metadata: fs::Metadata| metadata.is_file() && metadata.mode() & 0o7777 == *mode;
            if fs::symlink_metadata(to).is_ok_and(whole)
                && fs::read(to).is_ok_and(|present| present == content)
            {
                return Ok(());
            }
            replace(to, |beside| {
                fs::write(beside, &content)?;
                fs::set_permissions(beside, fs::Permissions::from_mode(*mode))
            })
        }
    };
    put.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => anyhow::anyhow!(
            "cannot write {}: build as yourself and install as a user that can write there: make, then sudo make install",
            to.display()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot write {}", to.display())),
    })
}

/// Makes a file or link beside its place, and renames it into it.
fn replace(to: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let made = make(&beside).and_then(|()| fs::rename(&beside, to));
    if made.is_err() {
        fs::remove_file(&beside).ok();
    }
    made
}

fn stamp(entries: &[Entry]) -> Result<String> {
    let mut stamp = String::new();
    for Entry { path, .. } in entries {
        let metadata = fs::symlink_metadata(path)?;
        stamp += &format!("{} {} {}\n", metadata.mtime(), metadata.mtime_nsec(), path.display());
    }
    Ok(stamp)
}

fn digest<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Result<String> {
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(fs::read(file)?);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
