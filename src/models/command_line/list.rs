//! `list`: the models that are installed.

use std::process::ExitCode;

use clap::Args;
use indicatif::DecimalBytes;
use pg_clip_embedder::{ModelsDirectory, fail, installed};

use super::table::print;
use crate::error::Error;
use crate::install::{Origin, Record, tree_size};

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    pub models: ModelsDirectory,
}

/// Prints the installed models. A model that was put there by hand has no record, and no source.
pub(crate) fn run(options: &ListOptions) -> ExitCode {
    match rows(options) {
        Ok(rows) => {
            print(&rows);
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

fn rows(options: &ListOptions) -> Result<Vec<[String; 6]>, Error> {
    let mut rows = vec![["name", "source", "revision", "variant", "size", "licence"].map(str::to_owned)];
    let directory = &options.models.path()?;
    std::fs::read_dir(directory).map_err(Error::io(format!("cannot read {}", directory.display())))?;
    for name in installed(directory) {
        let folder = directory.join(&name);
        let unknown = String::new;
        rows.push(match Record::of(&folder) {
            Ok(Some(record)) => {
                let size = DecimalBytes(record.size()).to_string();
                let (source, revision) = match record.source {
                    Origin::Hub { repository, commit, .. } => (repository, commit.chars().take(12).collect()),
                    Origin::Imported => ("imported".to_owned(), unknown()),
                    Origin::Quantized { model, fingerprint, .. } => {
                        (format!("quantized from {model}"), fingerprint.chars().take(12).collect())
                    }
                };
                [name, source, revision, record.variant, size, record.licence.unwrap_or_default()]
            }
            // A repository may have a model.json of its own, which is no record.
            Ok(None) | Err(Error::BadRecord { .. }) => {
                let size =
                    tree_size(&folder).map_err(Error::io(format!("cannot read {}", folder.display())))?;
                [name, unknown(), unknown(), unknown(), DecimalBytes(size).to_string(), unknown()]
            }
            Err(error) => return Err(error),
        });
    }
    Ok(rows)
}
