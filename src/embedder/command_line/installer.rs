//! The commands that install models belong to another program, `pg_clip_models`, which lies beside this one.
//!
//! This program parses strangers' files, and so links nothing that speaks to a network.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::failure::fail;
use crate::error::Error;

/// The commands of `pg_clip_models`, each with its purpose.
pub const INSTALLER_COMMANDS: [(&str, &str); 6] = [
    ("fetch", "Install a model from a hub"),
    ("import", "Install a model from a folder"),
    ("quantize", "Make an 8-bit model out of an installed one, and install it"),
    (
        "catalogue",
        "List published models, by the short names that `fetch` takes: figures, licences, hashes, and advice",
    ),
    ("list", "List the installed models"),
    ("remove", "Remove an installed model"),
];

const PROGRAM: &str = "pg_clip_models";

/// The commands as `--help` lists them.
pub(crate) fn listed() -> impl Iterator<Item = clap::Command> {
    INSTALLER_COMMANDS.iter().map(|(name, about)| clap::Command::new(*name).about(*about))
}

/// Whether the command line, which begins with this program's name, is one of these commands, or asks for help about one.
pub(crate) fn is_asked_for(command_line: &[OsString]) -> bool {
    let word = |at: usize| command_line.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let command = if word(1) == "help" { word(2) } else { word(1) };
    INSTALLER_COMMANDS.iter().any(|(name, _)| *name == command)
}

/// Becomes `pg_clip_models`, with the same command line, terminal and environment.
pub(crate) fn run(command_line: &[OsString]) -> ExitCode {
    let Some((own_name, arguments)) = command_line.split_first() else { return ExitCode::FAILURE };
    let program = match env::current_exe() {
        Ok(own) => own.with_file_name(PROGRAM),
        Err(error) => return fail(Error::io("cannot find the folder of this program")(error)),
    };
    // Its help and its complaints name it as it was called.
    let source = Command::new(&program).arg0(own_name).args(arguments).exec();
    fail(Error::NoInstaller { program, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_asked_for_by(command_line: &str) -> bool {
        is_asked_for(&command_line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_decides_which_program_runs() {
        for line in ["p fetch a/b", "p fetch --help", "p help import", "p list", "p catalogue extra"] {
            assert!(is_asked_for_by(line), "{line}");
        }
        for line in
            ["p", "p check fetch", "p embed --text list", "p help", "p help check", "p fetched", "fetch p"]
        {
            assert!(!is_asked_for_by(line), "{line}");
        }
    }
}
