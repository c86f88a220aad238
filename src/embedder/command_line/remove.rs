//! `remove`: a model that is no longer wanted, or what an unfinished `fetch` left of one.

use std::process::ExitCode;

use clap::Args;

use super::check::fail;
use super::place::ModelsDirectory;
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
    match options.models.path().and_then(|directory| install::remove(&directory, &options.name)) {
        Ok(()) => {
            println!("removed {}", options.name);
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}
