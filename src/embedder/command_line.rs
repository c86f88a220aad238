//! The command line.

pub(crate) mod check;
pub(crate) mod embed;
mod failure;
pub(crate) mod installer;
mod place;
pub(crate) mod sandbox;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::failure::fail;
pub use self::installer::INSTALLER_COMMANDS;
pub use self::place::{ModelsDirectory, Place};
use crate::server::ServeOptions;

/// Computes CLIP embeddings for PostgreSQL
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the embedder and end with it; started by PostgreSQL
    Guard(ServeOptions),
    /// Serve embeddings on a Unix socket; started by `guard`
    Serve(ServeOptions),
    /// Load a model, test it, and say what it is
    Check(check::CheckOptions),
    /// Embed one text or one image and print its vector
    Embed(embed::EmbedOptions),
    /// Enter the sandbox of the server and say what it refuses on this machine
    Sandbox(sandbox::SandboxOptions),
}

impl Arguments {
    /// Reads a command line that is not the installer's, whose commands are listed all the same.
    pub(crate) fn of(command_line: Vec<OsString>) -> Result<Arguments, clap::Error> {
        let command = Arguments::command().subcommands(installer::listed());
        Arguments::from_arg_matches(&command.try_get_matches_from(command_line)?)
    }
}
