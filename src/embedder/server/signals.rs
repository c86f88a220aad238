//! How the server is told to end.
//!
//! The handler does nothing but leave with status 0, which any moment allows. The guardian blocks these signals
//! before it executes the server, so that none can kill the server by its default action before the handler is
//! there.

use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The signals that end the embedder.
pub(crate) const FATAL: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// From now on each of [`FATAL`] ends the process with status 0.
pub(super) fn exit_when_told() -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(exit), SaFlags::SA_RESTART, SigSet::empty());
    for signal in FATAL {
        // SAFETY: the handler calls nothing but _exit, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(SigSet::from_iter(FATAL).thread_unblock()?)
}

extern "C" fn exit(_signal: libc::c_int) {
    // SAFETY: _exit takes any status, does not return, and is async-signal-safe.
    unsafe { libc::_exit(0) }
}
