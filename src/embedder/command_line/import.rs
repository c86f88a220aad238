//! `import`: a model from a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::check::fail;
use super::installation::InstallOptions;
use crate::error::Error;
use crate::install::{FileRecord, Origin, Progress, copy, folder_files};

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
    let cannot = || Error::io(format!("cannot read {}", options.folder.display()));
    let folder = options.folder.canonicalize().map_err(cannot())?;
    let paths = folder_files(&folder)?;
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let unusable = |reason| Error::UnusableFolder { path: options.folder.clone(), reason };
    let selection = installation.select(&paths, unusable)?;

    let mut sizes = Vec::new();
    for path in &selection.files {
        sizes.push(fs::metadata(folder.join(path)).map_err(cannot())?.len());
    }
    let source = folder.file_name().unwrap_or_default().to_string_lossy();
    let staging = installation.stage(&source, &selection.variant)?;
    let mut progress = Progress::new(sizes.iter().sum());
    let mut copied = BTreeMap::new();
    for (path, size) in selection.files.iter().zip(sizes) {
        progress.file(path, size);
        let (size, sha256) = copy(&folder.join(path), &staging.file(path)?, &mut progress)?;
        if let Err(error) = installation.pins.check(path, &sha256) {
            staging.discard()?;
            return Err(error);
        }
        copied.insert(path.clone(), FileRecord { size, sha256: hex::encode(sha256) });
    }
    progress.finish();
    installation.finish(staging, Origin::Imported, selection.variant, None, copied)
}
