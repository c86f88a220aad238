//! The command line.

pub(crate) mod catalogue;
pub(crate) mod check;
pub(crate) mod embed;
pub(crate) mod fetch;
pub(crate) mod import;
mod installation;
pub(crate) mod list;
mod place;
pub(crate) mod quantize;
pub(crate) mod remove;
pub(crate) mod sandbox;

use clap::{Parser, Subcommand};

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
    Sandbox(place::Place),
    /// Install a model from a hub
    Fetch(fetch::FetchOptions),
    /// Install a model from a folder
    Import(import::ImportOptions),
    /// Make an 8-bit model out of an installed one, and install it
    Quantize(quantize::QuantizeOptions),
    /// List published models, by the short names that `fetch` takes: figures, licences, hashes, and which one is for what
    Catalogue,
    /// List the installed models
    List(list::ListOptions),
    /// Remove an installed model
    Remove(remove::RemoveOptions),
}
