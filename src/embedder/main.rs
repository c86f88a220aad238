//! The process beside PostgreSQL: it holds the CLIP models and turns images and texts into embeddings.
//!
//! `guard` is what PostgreSQL's supervisor starts; it starts `serve` and watches it. `check` and `embed` are for
//! people at a command line, over the same code.
//!
//! Always true: image bytes are parsed in `serve` and nowhere else · a status other than 0 or 1 never leaves `guard`,
//! because a postmaster that is PID 1 would take it for a crash of its own child and restart the cluster.

mod batch;
mod command_line;
mod error;
mod guardian;
mod image;
mod log;
mod model;
mod onnxruntime;
mod scheduling;
mod server;
mod stats;
mod text;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::{Arguments, Command};

fn main() -> ExitCode {
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
    }
}
