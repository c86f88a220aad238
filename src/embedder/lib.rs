//! The process beside PostgreSQL: it holds the CLIP models and turns images and texts into embeddings.
//!
//! PostgreSQL's supervisor starts `guard`; `guard` starts `serve` and watches it. The other subcommands are for
//! people at a command line, over the same code: they look at models, and embed. The subcommands that install
//! models belong to another program, `pg_clip_models`, which uses this library.
//!
//! Always true: strangers' image bytes are parsed in `serve` and nowhere else · nothing here speaks to a network,
//! and no crate that could is linked · a status other than 0 or 1 never leaves `guard`, because a postmaster that
//! is PID 1 would take it for a crash of its own child and restart the cluster.

mod batch;
mod command_line;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guardian;
mod image;
mod log;
mod memory;
mod model;
mod one_input;
mod onnxruntime;
mod pace;
mod sandbox;
mod scheduling;
mod server;
mod stats;
mod text;
mod watchdog;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use crate::command_line::{Arguments, Command, installer};
pub use crate::command_line::{INSTALLER_COMMANDS, ModelsDirectory, Place, fail};
pub use crate::error::{Error, sentence};
pub use crate::log::install_panic_hook;
pub use crate::model::{Folder, Model, installed, locate};
pub use crate::one_input::{embed_image, embed_text};
pub use crate::onnxruntime::OnnxRuntime;

/// The program.
pub fn main() -> ExitCode {
    install_panic_hook();
    let command_line: Vec<OsString> = env::args_os().collect();
    if installer::is_asked_for(&command_line) {
        return installer::run(&command_line);
    }
    let arguments = match Arguments::of(command_line) {
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
    }
}
