//! `fetch`: a model from a hub.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use clap::Args;
use pg_clip_embedder::fail;

use super::installation::{InstallOptions, Installation};
use crate::error::Error;
use crate::install::{
    Digest, Entry, FileRecord, Hub, Origin, Parts, Pinned, Progress, Repository, Snapshot, Staging,
    catalogue, download,
};

/// Install a model from a hub
///
/// The hub is that of HF_ENDPOINT, https://huggingface.co by default. A firewall must let through its host, and the
/// hosts that it redirects to: for huggingface.co these are *.hf.co and *.xethub.hf.co.
#[derive(Debug, Args)]
pub(crate) struct FetchOptions {
    /// Repository, as OWNER/NAME or OWNER/NAME@REVISION, or a name of the catalogue
    #[arg(value_name = "REPOSITORY", required_unless_present = "lock")]
    pub repository: Option<String>,
    /// Folder of the repository that holds the model
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<String>,
    /// Another repository that has the tokenizer, and the configuration that the model's own lacks
    #[arg(long, value_name = "REPOSITORY")]
    pub tokenizer: Option<String>,
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

/// The model to fetch.
struct Wanted {
    repository: Repository,
    /// The commit of the lock file or of the catalogue.
    commit: Option<String>,
    folder: Option<String>,
    tokenizer: Option<Repository>,
    /// The sha256 that the catalogue knows, by paths.
    known: BTreeMap<String, String>,
}

fn fetch(options: &FetchOptions) -> Result<(), Error> {
    let mut installation = options.install.begin()?;
    let wanted = wanted(options, &installation)?;
    let hub = Hub::from_environment()?;
    let model = wanted.repository.snapshot(&hub)?;
    let tokenizer = wanted.tokenizer.as_ref().map(|repository| repository.snapshot(&hub)).transpose()?;
    let parts = Parts::of(model, wanted.folder.as_deref(), tokenizer)?;

    let paths: Vec<&str> = parts.files.keys().map(String::as_str).collect();
    let unusable = |reason| Error::UnusableRepository { repository: wanted.repository.name.clone(), reason };
    let selection = installation.select(&paths, unusable)?;
    let known = wanted.known.iter().filter(|(path, _)| selection.files.contains(*path));
    for (path, sha256) in known {
        // A hash that the command line or the lock file demands comes before the catalogue's.
        installation.pins.files.entry(path.clone()).or_insert_with(|| sha256.clone());
    }
    for path in &selection.files {
        if let Digest::Sha256(sha256) = &parts.file(path).digest {
            installation.pins.check(path, sha256)?;
        }
    }

    let source = wanted.folder.as_deref().and_then(|folder| folder.rsplit('/').next());
    let source = source.unwrap_or_else(|| wanted.repository.short_name());
    let staging = installation.stage(source, &selection.variant)?;
    let fetched = fetch_files(&hub, &parts, &selection.files, &staging, &installation)?;
    let pinned = |tokenizer: &Snapshot| Pinned {
        repository: tokenizer.repository.clone(),
        commit: tokenizer.commit.clone(),
    };
    let source = Origin::Hub {
        endpoint: hub.endpoint.clone(),
        repository: parts.model.repository.clone(),
        commit: parts.model.commit.clone(),
        folder: wanted.folder,
        tokenizer: parts.tokenizer.as_ref().map(pinned),
    };
    installation.finish(staging, source, selection.variant, parts.model.licence, fetched)
}

/// The repository that is named, at its revision or else at that of the lock file or of the catalogue.
fn wanted(options: &FetchOptions, installation: &Installation) -> Result<Wanted, Error> {
    let entry = options
        .repository
        .as_ref()
        .and_then(|name| catalogue().into_iter().find(|entry| entry.name == *name));
    let mut wanted = match (entry, &options.repository, &installation.lock) {
        (Some(entry), ..) => of_catalogue(entry)?,
        (None, Some(name), _) => named(name)?,
        (None, None, lock) => {
            let of_lock = lock.as_ref().and_then(|lock| lock.source.repository());
            named(of_lock.unwrap_or_default())?
        }
    };
    if let Some(lock) = &installation.lock
        && let Origin::Hub { repository, commit, folder, tokenizer, .. } = &lock.source
        && *repository == wanted.repository.name
    {
        wanted.commit = Some(commit.clone());
        wanted.folder.clone_from(folder);
        wanted.tokenizer = tokenizer.as_ref().map(Repository::from);
    }
    if let Some(folder) = &options.folder {
        wanted.folder = Some(folder.trim_matches('/').to_owned());
    }
    if let Some(tokenizer) = &options.tokenizer {
        wanted.tokenizer = Some(tokenizer.parse()?);
    }
    wanted.repository.revision = wanted.repository.revision.or(wanted.commit.take());
    Ok(wanted)
}

fn named(name: &str) -> Result<Wanted, Error> {
    Ok(Wanted {
        repository: name.parse()?,
        commit: None,
        folder: None,
        tokenizer: None,
        known: BTreeMap::new(),
    })
}

fn of_catalogue(entry: Entry) -> Result<Wanted, Error> {
    let repository = entry.repository.parse()?;
    let tokenizer = entry.tokenizer.as_deref().map(str::parse).transpose()?;
    let known = entry.files.into_iter().map(|(path, file)| (path, file.sha256)).collect();
    Ok(Wanted { repository, commit: entry.commit, folder: entry.folder, tokenizer, known })
}

fn fetch_files(
    hub: &Hub,
    parts: &Parts,
    paths: &[String],
    staging: &Staging,
    installation: &Installation,
) -> Result<BTreeMap<String, FileRecord>, Error> {
    let files = || paths.iter().map(|path| (path, parts.file(path)));
    let mut progress = Progress::new(files().fold(0, |total, (_, file)| total.saturating_add(file.size)));
    let mut fetched = BTreeMap::new();
    for (path, file) in files() {
        progress.file(path, file.size);
        let target = staging.file(path)?;
        let sha256 = download(hub, parts.snapshot(path), file, &target, &mut progress)?;
        if let Err(error) = installation.pins.check(path, &sha256) {
            fs::remove_file(&target).map_err(Error::io(format!("cannot remove {}", target.display())))?;
            return Err(error);
        }
        fetched.insert(path.clone(), FileRecord::from((file.size, sha256)));
    }
    progress.finish();
    Ok(fetched)
}
