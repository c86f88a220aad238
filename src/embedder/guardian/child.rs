//! How the server is started.
//!
//! It is this same binary, by `/proc/self/exe`, so that an upgrade of the files in between changes nothing. Between
//! `fork` and `exec` it gives itself to the kernel's out-of-memory killer first, before PostgreSQL, and asks for SIGTERM
//! at the guardian's death. Its ending signals are blocked until it handles them.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fs, io};

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, getppid};

use crate::onnxruntime::DISABLE_TELEMETRY;
use crate::server::{FATAL, ServeOptions};

/// Starts `serve` with the options of the guardian. Descriptors 0, 1, 2 and the listening one are inherited.
pub(super) fn start(options: &ServeOptions) -> io::Result<Pid> {
    let guardian = getpid();
    let mut command = Command::new("/proc/self/exe");
    command.arg0("pg_clip_embedder").arg("serve").args(options.to_arguments()).env(DISABLE_TELEMETRY, "1");
    // SAFETY: the guardian has one thread, so that its copy may do in `prepare` all that it could do before.
    unsafe { command.pre_exec(move || prepare(guardian)) };
    let child = command.spawn()?;
    let process = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Pid::from_raw(process))
}

fn prepare(guardian: Pid) -> io::Result<()> {
    SigSet::from_iter(FATAL).thread_set_mask()?;
    // Raising the score needs no privilege; where /proc is not writable the server runs all the same.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != guardian {
        return Err(io::Error::other("the guardian is gone"));
    }
    Ok(())
}
