//! `fetch`: a model from a hub.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use clap::Args;

use super::check::fail;
use super::installation::{InstallOptions, Installation};
use crate::error::Error;
use crate::install::{
    Digest, FileRecord, Hub, Origin, Progress, RemoteFile, Repository, Snapshot, Staging, catalogue, download,
};

#[derive(Debug, Args)]
pub(crate) struct FetchOptions {
    /// Repository, as OWNER/NAME or OWNER/NAME@REVISION, or a name of the catalogue
    #[arg(value_name = "REPOSITORY", required_unless_present = "lock")]
    pub repository: Option<String>,
    #[command(flatten)]
    pub install: InstallOptions,
}

/// Installs the model, or prints why not.
pub(crate) fn run(options: &FetchOptions) -> ExitCode {
    match fetch(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn fetch(options: &FetchOptions) -> Result<(), Error> {
    let installation = options.install.begin()?;
    let repository = repository(options, &installation)?;
    let hub = Hub::from_environment()?;
    let snapshot = repository.snapshot(&hub)?;

    let paths: Vec<&str> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
    let unusable = |reason| Error::UnusableRepository { repository: repository.name.clone(), reason };
    let selection = installation.select(&paths, unusable)?;
    let files: Vec<&RemoteFile> =
        snapshot.files.iter().filter(|file| selection.files.contains(&file.path)).collect();
    for file in &files {
        if let Digest::Sha256(sha256) = &file.digest {
            installation.pins.check(&file.path, sha256)?;
        }
    }

    let staging = installation.stage(repository.short_name(), &selection.variant)?;
    let fetched = fetch_files(&hub, &snapshot, &files, &staging, &installation)?;
    let source = Origin::Hub {
        endpoint: hub.endpoint.clone(),
        repository: snapshot.repository,
        commit: snapshot.commit,
    };
    installation.finish(staging, source, selection.variant, snapshot.licence, fetched)
}

/// What is to be fetched: the repository that is named, at its revision or else at that of the lock file.
fn repository(options: &FetchOptions, installation: &Installation) -> Result<Repository, Error> {
    let locked = installation.lock.as_ref().and_then(|lock| match &lock.source {
        Origin::Hub { repository, commit, .. } => Some((repository, commit)),
        Origin::Imported | Origin::Quantized { .. } => None,
    });
    let named = match (&options.repository, locked) {
        (Some(name), _) => catalogue()
            .into_iter()
            .find(|entry| entry.name == *name)
            .map_or_else(|| name.clone(), |entry| entry.repository),
        (None, Some((repository, _))) => repository.clone(),
        (None, None) => String::new(),
    };
    let mut repository: Repository = named.parse()?;
    if let Some((name, commit)) = locked
        && *name == repository.name
    {
        repository.revision.get_or_insert_with(|| commit.clone());
    }
    Ok(repository)
}

fn fetch_files(
    hub: &Hub,
    snapshot: &Snapshot,
    files: &[&RemoteFile],
    staging: &Staging,
    installation: &Installation,
) -> Result<BTreeMap<String, FileRecord>, Error> {
    let mut progress = Progress::new(files.iter().fold(0, |total, file| total.saturating_add(file.size)));
    let mut fetched = BTreeMap::new();
    for file in files {
        progress.file(&file.path, file.size);
        let target = staging.file(&file.path)?;
        let sha256 = download(hub, snapshot, file, &target, &mut progress)?;
        if let Err(error) = installation.pins.check(&file.path, &sha256) {
            fs::remove_file(&target).map_err(Error::io(format!("cannot remove {}", target.display())))?;
            return Err(error);
        }
        fetched.insert(file.path.clone(), FileRecord::from((file.size, sha256)));
    }
    progress.finish();
    Ok(fetched)
}
