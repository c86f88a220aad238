//! `import`: a model from a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use pg_clip_embedder::fail;

use super::installation::{InstallOptions, Installation};
use crate::error::Error;
use crate::install::{FileRecord, Origin, Progress, Staging, copy, folder_files};

#[derive(Debug, Args)]
pub(crate) struct ImportOptions {
    /// Folder that holds the model, such as a clone of its repository
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    #[command(flatten)]
    pub install: InstallOptions,
}

/// Installs the model, or prints why not.
pub(crate) fn run(options: &ImportOptions) -> ExitCode {
    match import(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn import(options: &ImportOptions) -> Result<(), Error> {
    let installation = options.install.begin()?;
    let cannot = Error::io(format!("cannot read {}", options.folder.display()));
    let folder = options.folder.canonicalize().map_err(cannot)?;
    let paths = folder_files(&folder)?;
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let unusable = |reason| Error::UnusableFolder { path: options.folder.clone(), reason };
    let selection = installation.select(&paths, unusable)?;

    let source = folder.file_name().unwrap_or_default().to_string_lossy();
    let staging = installation.stage(&source, &selection.variant)?;
    let copied = match copy_files(&folder, &selection.files, &staging, &installation) {
        Ok(copied) => copied,
        Err(error) => {
            staging.discard()?;
            return Err(error);
        }
    };
    installation.finish(staging, Origin::Imported, selection.variant, None, copied)
}

fn copy_files(
    folder: &Path,
    paths: &[String],
    staging: &Staging,
    installation: &Installation,
) -> Result<BTreeMap<String, FileRecord>, Error> {
    let mut sizes = Vec::new();
    for path in paths {
        let file = folder.join(path);
        sizes.push(fs::metadata(&file).map_err(Error::io(format!("cannot read {}", file.display())))?.len());
    }
    let mut progress = Progress::new(sizes.iter().sum());
    let mut copied = BTreeMap::new();
    for (path, size) in paths.iter().zip(sizes) {
        progress.file(path, size);
        let (size, sha256) = copy(&folder.join(path), &staging.file(path)?, &mut progress)?;
        installation.pins.check(path, &sha256)?;
        copied.insert(path.clone(), FileRecord::from((size, sha256)));
    }
    progress.finish();
    Ok(copied)
}
