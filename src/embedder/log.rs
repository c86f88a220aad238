//! Lines for the server log.
//!
//! Descriptor 2 is a socket that the supervisor reads: each line becomes a line of PostgreSQL's log, with the severity
//! of its first word. A line is one `write`, so lines of several threads never mix. Nothing here fails: a supervisor
//! that is gone must not end or panic its guardian.

use std::fmt::Arguments;
use std::{io, panic, process, thread};

/// Writes something worth knowing: a model is loaded, the embedder starts.
macro_rules! log_line {
    ($($message:tt)*) => { $crate::log::write_line("LOG", format_args!($($message)*)) };
}

/// Writes something that an administrator should look at.
macro_rules! warning {
    ($($message:tt)*) => { $crate::log::write_line("WARNING", format_args!($($message)*)) };
}

/// Writes that a model is loaded: an embedder that dies after such a line did work, and is soon started again.
macro_rules! loaded {
    ($($message:tt)*) => { $crate::log::write_line("LOADED", format_args!($($message)*)) };
}

pub(crate) use {loaded, log_line, warning};

/// Writes one line with the severity `LOG`, `WARNING` or `LOADED`; use the macros.
pub(crate) fn write_line(severity: &str, message: Arguments) {
    let message = message.to_string().replace(['\n', '\r'], " ");
    let line = format!("{severity}: {message}\n");
    let _ = nix::unistd::write(io::stderr(), line.as_bytes());
}

/// Makes a panic one line of the log. Where nothing catches it, it still ends its thread.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        let reason = info.payload_as_str().unwrap_or("no message");
        warning!("panic in thread {name} of process {}{place}: {reason}", process::id());
    }));
}
