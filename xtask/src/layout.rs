//! Which files make pg_clip, and where each goes.
//!
//! The programs, ONNX Runtime and the models lie in the folder `pg_clip` beside the library, or are linked there:
//! both the library and the program look there. All links are relative, so that a tree can be staged, packed and
//! moved.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build::Built;
use crate::environment::Runtime;
use crate::postgres::Postgres;
use crate::schema;
use crate::workspace::Workspace;

/// The folders that the files go to.
#[derive(Clone)]
pub struct Layout {
    /// Of `pg_clip.so`.
    pub library: PathBuf,
    /// Of the control file and the SQL.
    pub extension: PathBuf,
    /// Of the embedder's program, of the one that installs models, and of ONNX Runtime.
    pub programs: PathBuf,
    pub models: PathBuf,
    pub licences: PathBuf,
    /// On the PATH: of the feeder, and of a link to the embedder's program.
    pub commands: PathBuf,
}

pub struct Entry {
    /// An absolute path.
    pub path: PathBuf,
    pub content: Content,
}

pub enum Content {
    Copy {
        from: PathBuf,
        mode: u32,
    },
    /// A symbolic link, relative to its folder.
    Link(PathBuf),
}

impl Layout {
    /// Within the folders of one PostgreSQL.
    pub fn of(postgres: &Postgres) -> Layout {
        let own = postgres.sharedir.join("pg_clip");
        Layout {
            library: postgres.pkglibdir.clone(),
            extension: postgres.sharedir.join("extension"),
            programs: postgres.pkglibdir.join("pg_clip"),
            models: own.join("models"),
            licences: own.join("licences"),
            commands: postgres.bindir.clone(),
        }
    }
}

/// The files for one PostgreSQL: the library and the SQL.
pub fn of_extension(workspace: &Workspace, library: &Path, layout: &Layout) -> Result<Vec<Entry>> {
    let sql = workspace.root.join("sql");
    let mut scripts = files(&sql, |name| name.starts_with("pg_clip--") && name.ends_with(".sql"))?;
    scripts.extend(schema::assemble(&workspace.root, &workspace.target.join("sql"))?);
    scripts.push(workspace.root.join("pg_clip.control"));
    let mut entries = vec![copy(library, layout.library.join("pg_clip.so"), 0o755)];
    entries.extend(scripts.into_iter().map(|script| into(script, &layout.extension)));
    let programs = layout.library.join("pg_clip");
    if programs != layout.programs {
        entries.push(link(programs, &layout.programs));
    }
    Ok(entries)
}

/// The files that any number of PostgreSQLs can share: the programs that were built, ONNX Runtime, the demo model, the
/// licences.
pub fn of_embedder(
    workspace: &Workspace,
    built: &Built,
    runtime: &Runtime,
    layout: &Layout,
) -> Result<Vec<Entry>> {
    const CONFIGURATION: [&str; 3] = ["tokenizer.json", "config.json", "preprocessor_config.json"];
    let demo = workspace.root.join("models/demo");
    let model = files(&demo, |name| name.ends_with(".onnx") || CONFIGURATION.contains(&name))?;
    if model.is_empty() {
        bail!("{} has nothing to install", demo.display());
    }
    let installed = layout.programs.join("pg_clip_embedder");
    let mut entries = vec![
        copy(&built.embedder, installed.clone(), 0o755),
        copy(&built.models, layout.programs.join("pg_clip_models"), 0o755),
        copy(&runtime.library, layout.programs.join("libonnxruntime.so"), 0o755),
        link(layout.commands.join("pg_clip_embedder"), &installed),
        into(workspace.root.join("LICENSE"), &layout.licences),
        into(demo.join("NOTICE"), &layout.licences.join("demo-model")),
    ];
    entries.extend(
        built.feeder.iter().map(|feeder| copy(feeder, layout.commands.join("pg_clip_feeder"), 0o755)),
    );
    if layout.models != layout.programs.join("models") {
        entries.push(link(layout.programs.join("models"), &layout.models));
    }
    entries.extend(model.into_iter().map(|file| into(file, &layout.models.join("demo"))));
    let licences = runtime.licences.iter().cloned();
    entries.extend(licences.map(|file| into(file, &layout.licences.join("onnxruntime"))));
    Ok(entries)
}

/// All the files for one PostgreSQL.
pub fn of_both(
    workspace: &Workspace,
    built: &Built,
    runtime: &Runtime,
    layout: &Layout,
) -> Result<Vec<Entry>> {
    let mut entries = of_extension(workspace, &built.library, layout)?;
    entries.extend(of_embedder(workspace, built, runtime, layout)?);
    Ok(entries)
}

/// A file of its own name in the folder.
pub(crate) fn into(file: PathBuf, folder: &Path) -> Entry {
    let path = folder.join(file.file_name().unwrap_or_default());
    copy(&file, path, 0o644)
}

fn copy(from: &Path, path: PathBuf, mode: u32) -> Entry {
    Entry { path, content: Content::Copy { from: from.to_owned(), mode } }
}

fn link(path: PathBuf, target: &Path) -> Entry {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let content = Content::Link(relative(folder, target));
    Entry { path, content }
}

/// The way from a folder to a path, both absolute.
fn relative(folder: &Path, to: &Path) -> PathBuf {
    let common = folder.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::relative;

    #[test]
    fn a_link_leads_from_its_folder() {
        let from_to = |folder, to| relative(Path::new(folder), Path::new(to));
        assert_eq!(from_to("/usr/lib/postgresql/18/lib", "/usr/lib/pg_clip"), Path::new("../../../pg_clip"));
        assert_eq!(from_to("/usr/bin", "/usr/lib/pg_clip/a"), Path::new("../lib/pg_clip/a"));
        assert_eq!(from_to("/a", "/a/b"), Path::new("b"));
    }
}
