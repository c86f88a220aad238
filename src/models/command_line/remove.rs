//! `remove`: a model that is no longer wanted, or the rest of an unfinished `fetch`.

use std::process::ExitCode;

use clap::Args;
use pg_clip_embedder::{ModelsDirectory, fail};

use crate::error::Error;
use crate::install;

#[derive(Debug, Args)]
pub(crate) struct RemoveOptions {
    /// Model to remove
    pub name: String,
    #[command(flatten)]
    pub models: ModelsDirectory,
}

/// Removes the model, or prints why not.
pub(crate) fn run(options: &RemoveOptions) -> ExitCode {
    match remove(options) {
        Ok(()) => {
            println!("removed {}", options.name);
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

fn remove(options: &RemoveOptions) -> Result<(), Error> {
    install::remove(&options.models.path()?, &options.name)
}
