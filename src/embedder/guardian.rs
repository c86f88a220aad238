//! The guardian: starts the server, watches it, and takes it with itself.
//!
//! PostgreSQL's supervisor executes it in a child of its own. Where the supervisor dies first, its children are adopted
//! by the next subreaper; where that is a postmaster that is PID 1 (containers), any status but 0 and 1 looks to it like
//! a crash of a server process, and it restarts the whole cluster. So this process does almost nothing, and:
//!
//! - it ends with status 0 or 1 and no other, in every case;
//! - no signal acts on it by default: they arrive by `signalfd`. Its session is its own, so that signals to the
//!   supervisor's process group do not reach it;
//! - it adopts the processes that the server leaves behind (`PR_SET_CHILD_SUBREAPER`), and ends only after all of
//!   them have;
//! - descriptor 2 is the log: when the other end is closed, the supervisor is gone.

mod child;
mod children;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::{io, panic};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;
use nix::unistd::setsid;

use crate::log::warning;
use crate::server::{FATAL, ServeOptions};

/// Runs the server until it ends, which is status 1, or until this process is told to end, which is status 0.
pub(crate) fn run(options: &ServeOptions) -> ExitCode {
    let guarded = panic::catch_unwind(|| {
        let guarded = guard(options);
        children::end();
        guarded
    });
    match guarded {
        Ok(Ok(End::Told)) => ExitCode::SUCCESS,
        Ok(Ok(End::ServerDied(how))) => {
            warning!("{how}");
            ExitCode::FAILURE
        }
        Ok(Err(error)) => {
            warning!("embedder cannot be guarded: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            children::end();
            ExitCode::FAILURE
        }
    }
}

enum End {
    Told,
    ServerDied(String),
}

fn guard(options: &ServeOptions) -> io::Result<End> {
    let signals = receive_signals()?;
    // Fails where this process leads a session already, which serves as well.
    let _ = setsid();
    prctl::set_child_subreaper(true)?;
    let server = child::start(options)?;
    loop {
        match wait(&signals)? {
            Event::SupervisorGone => return Ok(End::Told),
            Event::Signal(Signal::SIGCHLD) => {
                if let Some(status) = children::reap(server) {
                    return Ok(End::ServerDied(describe(status)));
                }
            }
            Event::Signal(signal) if FATAL.contains(&signal) => return Ok(End::Told),
            Event::Signal(_) => {}
        }
    }
}

/// From now on every signal that can be held back arrives at the descriptor.
fn receive_signals() -> io::Result<SignalFd> {
    let all = SigSet::all();
    all.thread_block()?;
    Ok(SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

enum Event {
    Signal(Signal),
    SupervisorGone,
}

fn wait(signals: &SignalFd) -> io::Result<Event> {
    let stderr = io::stderr();
    loop {
        let mut descriptors = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stderr.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let [_, log] = descriptors.map(|descriptor| descriptor.revents().unwrap_or(PollFlags::empty()));
        if log.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Ok(Event::SupervisorGone);
        }
        if let Some(received) = signals.read_signal()? {
            // A real-time signal has no name, and no meaning here.
            if let Ok(signal) = Signal::try_from(received.ssi_signo as i32) {
                return Ok(Event::Signal(signal));
            }
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(process, status) => {
            format!("embedder process {process} exited with status {status}")
        }
        WaitStatus::Signaled(process, signal, _) => {
            format!("embedder process {process} was killed by {signal}")
        }
        other => format!("embedder process ended: {other:?}"),
    }
}
