//! `remove`: a model that is no longer wanted, or what an unfinished `fetch` left of one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::check::fail;
use crate::install;

#[derive(Debug, Args)]
pub(crate) struct RemoveOptions {
    /// Model to remove
    pub name: String,
    /// Folder that holds a folder for each model
    #[arg(long, value_name = "DIR")]
    pub models_directory: PathBuf,
}

/// Removes the model, or prints why not.
pub(crate) fn run(options: &RemoveOptions) -> ExitCode {
    match install::remove(&options.models_directory, &options.name) {
        Ok(()) => {
            println!("removed {}", options.name);
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}
