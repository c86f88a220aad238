//! Installing into a PostgreSQL, where the server finds everything without a setting.
//!
//! A running server has these files mapped: each is copied beside its place and renamed, never written in place, and
//! one that is already the same is left alone.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::build::Built;
use crate::environment::Environment;
use crate::postgres::Postgres;
use crate::schema;
use crate::workspace::Workspace;

/// What is installed.
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
    let libraries = &postgres.pkglibdir;
    let extensions = postgres.sharedir.join("extension");
    let mut sql = vec![(workspace.root.join("pg_clip.control"), extensions.join("pg_clip.control"))];
    let mut scripts = released_scripts(&workspace.root.join("sql"))?;
    scripts.push(schema::assemble(&workspace.root, &workspace.target.join("sql"))?);
    sql.extend(each_into(scripts, &extensions));
    let mut data = sql.clone();
    data.extend(each_into(
        model(&workspace.root.join("models/demo"))?,
        &postgres.sharedir.join("pg_clip/models/demo"),
    ));
    let programs = [
        (built.library.clone(), libraries.join("pg_clip.so")),
        (environment.onnxruntime(), libraries.join("pg_clip/libonnxruntime.so")),
        (built.embedder.clone(), postgres.bindir.join("pg_clip_embedder")),
        (built.feeder.clone(), postgres.bindir.join("pg_clip_feeder")),
    ];
    for (from, to) in &programs {
        copy(from, to, 0o755)?;
    }
    for (from, to) in &data {
        copy(from, to, 0o644)?;
    }
    Ok(Installed {
        files: stamp(programs.iter().chain(&data).map(|(_, to)| to))?,
        schema: digest(sql.iter().map(|(from, _)| from))?,
    })
}

fn each_into(files: Vec<PathBuf>, folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let place = |file: PathBuf| {
        let to = folder.join(file.file_name().unwrap_or_default());
        (file, to)
    };
    files.into_iter().map(place).collect()
}

fn released_scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    files(folder, |name| name.starts_with("pg_clip--") && name.ends_with(".sql"))
}

fn model(folder: &Path) -> Result<Vec<PathBuf>> {
    const CONFIGURATION: [&str; 3] = ["tokenizer.json", "config.json", "preprocessor_config.json"];
    let files = files(folder, |name| name.ends_with(".onnx") || CONFIGURATION.contains(&name))?;
    if files.is_empty() {
        bail!("{} has nothing to install", folder.display());
    }
    Ok(files)
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let same_mode = |metadata: fs::Metadata| metadata.mode() & 0o7777 == mode;
    if fs::symlink_metadata(to).is_ok_and(same_mode) && fs::read(to).is_ok_and(|present| present == content) {
        return Ok(());
    }
    put(&content, to, mode).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => anyhow::anyhow!(
            "cannot write {}: run this as a user that can, e.g. sudo env \"PATH=$PATH\" cargo xtask install \
             --pg-config PATH",
            to.display()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot write {}", to.display())),
    })
}

fn put(content: &[u8], to: &Path, mode: u32) -> std::io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let written = fs::write(&beside, content)
        .and_then(|()| fs::set_permissions(&beside, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&beside, to));
    if written.is_err() {
        fs::remove_file(&beside).ok();
    }
    written
}

fn stamp<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Result<String> {
    let mut stamp = String::new();
    for file in files {
        let metadata = fs::metadata(file)?;
        stamp += &format!("{} {} {}\n", metadata.mtime(), metadata.mtime_nsec(), file.display());
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
