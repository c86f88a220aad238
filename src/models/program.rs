//! `pg_clip_models`: installs the models that the embedder computes with.
//!
//! It is a program of its own so that the embedder, which parses strangers' files, links nothing that speaks to a
//! network. It looks into a model, and loads it, with the embedder's own code. People call it by the embedder's
//! name: `pg_clip_embedder fetch` becomes this program.
//!
//! Always true: only `fetch` opens a network connection · no stranger's image is parsed here.

mod command_line;
mod error;
mod install;
mod quantize;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::{Arguments, Command};

fn main() -> ExitCode {
    pg_clip_embedder::install_panic_hook();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            let _ = refusal.print();
            return if refusal.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        Command::Fetch(options) => command_line::fetch::run(&options),
        Command::Import(options) => command_line::import::run(&options),
        Command::Quantize(options) => command_line::quantize::run(&options),
        Command::Catalogue => command_line::catalogue::run(),
        Command::List(options) => command_line::list::run(&options),
        Command::Remove(options) => command_line::remove::run(&options),
    }
}
