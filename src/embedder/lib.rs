//! The process beside PostgreSQL: it holds the CLIP models and turns images and texts into embeddings.
//!
//! `guard` is what PostgreSQL's supervisor starts; it starts `serve` and watches it. The other subcommands are for
//! people at a command line, over the same code: they install models, look at them, and embed.
//!
//! Always true: image bytes are parsed in `serve` and nowhere else · only `fetch` opens a network connection · a status
//! other than 0 or 1 never leaves `guard`, because a postmaster that is PID 1 would take it for a crash of its own child
//! and restart the cluster.

mod batch;
mod command_line;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guardian;
mod image;
mod install;
mod log;
mod memory;
mod model;
mod onnxruntime;
mod quantize;
mod sandbox;
mod scheduling;
mod server;
mod stats;
mod text;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::{Arguments, Command};

/// What the program does.
pub fn main() -> ExitCode {
    log::install_panic_hook();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            let _ = refusal.print();
            return if refusal.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match arguments.command {
        Command::Guard(options) => guardian::run(&options),
        Command::Serve(options) => server::run(options),
        Command::Check(options) => command_line::check::run(&options),
        Command::Embed(options) => command_line::embed::run(&options),
        Command::Sandbox(options) => command_line::sandbox::run(&options),
        Command::Fetch(options) => command_line::fetch::run(&options),
        Command::Import(options) => command_line::import::run(&options),
        Command::Quantize(options) => command_line::quantize::run(&options),
        Command::Catalogue => command_line::catalogue::run(),
        Command::List(options) => command_line::list::run(&options),
        Command::Remove(options) => command_line::remove::run(&options),
    }
}
