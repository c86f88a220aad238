//! The priority of the work on images: below everything else on the machine.
//!
//! The embedder shares its processors with PostgreSQL's backends and with its own lane of texts, for which sessions
//! wait. Decoding and the image towers can use every processor for minutes; their threads have a higher nice value,
//! so that they use the time that the others leave. Linux gives each thread a value of its own.
//!
//! Where the kernel groups processes for scheduling (autogroups, or a control group for the service), a value counts
//! within its group alone: then it orders texts before images, and the group's weight stands between the embedder and the
//! rest.

use std::sync::Once;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

/// By how much the nice value is raised. 10 makes the weight of a thread about a tenth: it keeps some progress on a
/// machine that is never idle.
const NICER: i32 = 10;

/// The signal that tells a thread to lower its priority.
const LOWER_PRIORITY: Signal = Signal::SIGUSR1;

/// Lowers the priority of the calling thread, and of the threads that it starts from now on. Where the system does
/// not allow it, only the order of work changes.
pub(crate) fn lower_priority() {
    // SAFETY: both calls take numbers alone, and touch no memory of ours; 0 is the calling thread.
    unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, now + NICER);
    }
}

/// Has a thread of this process lower its priority. It does so itself, when a signal interrupts it: the sandbox lets no thread
/// change the value of another one, which could be one of PostgreSQL's.
pub(crate) fn lower_priority_of(thread: Pid) {
    static HANDLED: Once = Once::new();
    HANDLED.call_once(|| {
        let action =
            SigAction::new(SigHandler::Handler(lower_own_priority), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler makes two system calls and keeps errno, which any moment allows.
        let _ = unsafe { sigaction(LOWER_PRIORITY, &action) };
    });
    // SAFETY: the call takes numbers alone; the signal has a handler by now.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), thread.as_raw(), LOWER_PRIORITY as libc::c_int);
    }
}

extern "C" fn lower_own_priority(_signal: libc::c_int) {
    let errno = Errno::last_raw();
    lower_priority();
    Errno::set_raw(errno);
}
