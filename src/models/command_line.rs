//! The command line.

pub(crate) mod catalogue;
pub(crate) mod fetch;
pub(crate) mod import;
mod installation;
pub(crate) mod list;
pub(crate) mod quantize;
pub(crate) mod remove;
mod table;

use clap::{Parser, Subcommand};

/// Installs models for the embedder of pg_clip
#[derive(Debug, Parser)]
#[command(name = "pg_clip_models", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// The embedder's `--help` lists the same: see [`pg_clip_embedder::INSTALLER_COMMANDS`].
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Install a model from a hub
    Fetch(fetch::FetchOptions),
    /// Install a model from a folder
    Import(import::ImportOptions),
    /// Make an 8-bit model out of an installed one, and install it
    Quantize(quantize::QuantizeOptions),
    /// List published models, by the short names that `fetch` takes: figures, licences, hashes, and advice
    Catalogue,
    /// List the installed models
    List(list::ListOptions),
    /// Remove an installed model
    Remove(remove::RemoveOptions),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use pg_clip_embedder::INSTALLER_COMMANDS;

    use super::*;

    #[test]
    fn the_embedder_names_the_same_commands() {
        let command = Arguments::command();
        let own: Vec<(&str, String)> = command
            .get_subcommands()
            .map(|command| (command.get_name(), command.get_about().unwrap().to_string()))
            .collect();
        let named: Vec<(&str, String)> =
            INSTALLER_COMMANDS.iter().map(|(name, about)| (*name, (*about).to_owned())).collect();
        assert_eq!(own, named);
    }
}
