//! The supervisor's child: the guardian, which has the embedder as its own child.
//!
//! One socket pair ties them together. Guardian and embedder write to their end, as stderr; the supervisor reads it
//! from its own end and writes it to the server log. When the supervisor ends, in any way, the guardian reads
//! end-of-file and ends the embedder; when guardian and embedder end, the supervisor reads end-of-file. Nothing
//! else of PostgreSQL's is inherited: no descriptor, no signal disposition or mask, no environment but the place of a
//! GPU's libraries, no out-of-memory score; the guardian leaves the process group.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use pg_clip_wire::LogLines;

use crate::error::Error;

/// The settings that the embedder is started with. Two that are equal need no restart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// `LD_LIBRARY_PATH`, where the embedder has need of it.
    pub(super) library_path: Option<OsString>,
}

/// Where the dynamic linker looks for libraries first.
pub(super) const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// A running guardian.
pub(super) struct Child {
    process: Process,
    log: UnixStream,
    lines: LogLines,
    /// The bytes that have come since `minute` began.
    written: usize,
    minute: Instant,
}

/// The most that is read of the log before the supervisor looks at anything else.
const MOST_AT_ONCE: usize = 64 << 10;

/// The most that an embedder may write to the log in a minute: one that writes without an end would fill the disk.
const MOST_A_MINUTE: usize = 4 << 20;

impl Child {
    /// Starts the guardian, with the listening socket as its stdin.
    pub(super) fn start(launch: &Launch, restarts: u32, listener: &UnixListener) -> Result<Child, Error> {
        let failed = |cause: io::Error| Error::system("start the embedder", cause);
        // exec reports a missing program after the fork; this check names it before.
        fs::metadata(&launch.program).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        let mut command = Command::new(&launch.program);
        command
            .arg("guard")
            .args(&launch.arguments)
            .arg(format!("--restarts={restarts}"))
            .env_clear()
            .envs(launch.library_path.iter().map(|path| (LIBRARY_PATH, path)))
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::from(listener.as_fd().try_clone_to_owned().map_err(failed)?))
            .stdout(Stdio::from(theirs.try_clone().map_err(failed)?))
            .stderr(Stdio::from(theirs));
        close_on_exec().map_err(failed)?;
        // SAFETY: the closure runs between fork and exec and calls only async-signal-safe functions.
        unsafe { command.pre_exec(leave_postgresql) };
        // A signal handler of the server's must not run in the fork.
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))
            .map_err(|errno| Error::system("block signals", errno))?;
        let started = command.spawn();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)
            .map_err(|errno| Error::system("restore the signal mask", errno))?;
        Ok(Child {
            process: started.map_err(failed)?,
            log: ours,
            lines: LogLines::default(),
            written: 0,
            minute: Instant::now(),
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.log.as_fd()
    }

    /// The lines that came since the last call, without waiting; where more is to be read, the descriptor stays
    /// readable.
    pub(super) fn lines(&mut self) -> Vec<String> {
        if self.minute.elapsed() >= Duration::from_secs(60) {
            (self.written, self.minute) = (0, Instant::now());
        }
        let mut chunk = [0; 4096];
        let (mut lines, mut read) = (Vec::new(), 0);
        while read < MOST_AT_ONCE {
            match self.log.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    lines.extend(self.lines.take(&chunk[..length]));
                    read += length;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.written += read;
        lines
    }

    /// Whether the embedder writes more to the log than one that works.
    pub(super) fn floods_the_log(&self) -> bool {
        self.written > MOST_A_MINUTE
    }

    /// How the guardian ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Ends guardian and embedder, and reaps the guardian. It kills without asking, so that this takes milliseconds.
    pub(super) fn stop(mut self) {
        drop(self.log);
        let _ = self.process.wait();
    }
}

/// Gives up everything else that the fork inherited from PostgreSQL.
fn leave_postgresql() -> io::Result<()> {
    const LAST_SIGNAL: libc::c_int = 64;
    // SAFETY: plain system calls on this process, all async-signal-safe. Errors for signals that cannot be changed,
    // and for a score that may not be lowered, leave things as they are.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=LAST_SIGNAL {
            libc::sigaction(signal, &default, std::ptr::null_mut());
        }
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());

        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            libc::write(score, c"0".as_ptr().cast(), 1);
            libc::close(score);
        }
    }
    Ok(())
}

/// Has the exec close every descriptor above stderr: PostgreSQL 15 leaves its own open. One by one, because the flag of
/// close_range(2) that does it came with Linux 5.11.
fn close_on_exec() -> io::Result<()> {
    let names: Vec<_> = fs::read_dir("/proc/self/fd")?.collect::<io::Result<_>>()?;
    let descriptors = names.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for descriptor in descriptors.filter(|descriptor| *descriptor > libc::STDERR_FILENO) {
        // SAFETY: it sets a flag of a number; the one that read the folder is closed by now, which is an error that
        // changes nothing.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}
