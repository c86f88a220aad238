//! How the work on images stands back behind everything else on the machine.
//!
//! The embedder shares its processors with PostgreSQL's backends and with its own lane of texts, which answer somebody
//! who waits. Decoding and the image towers can use every processor for minutes; their threads have a higher nice value,
//! so that they use what the others leave. Linux gives each thread a value of its own.
//!
//! Where the kernel groups processes for scheduling (autogroups, or a control group for the service), a value counts
//! within its group alone: then it orders texts before images, and the group's weight stands between the embedder and the
//! rest.

use nix::unistd::{Pid, gettid};

/// By how much the nice value is raised. 10 makes the weight of a thread about a tenth: it keeps some progress on a
/// machine that is never idle.
const NICER: i32 = 10;

/// Lets the calling thread stand back, and those that it starts from now on.
pub(crate) fn stand_back() {
    let_stand_back(gettid());
}

/// Lets a thread of this process stand back. Where the system does not allow it, nothing changes but the order of work.
pub(crate) fn let_stand_back(thread: Pid) {
    let thread = thread.as_raw().unsigned_abs();
    // SAFETY: both calls take numbers alone, and touch no memory of ours.
    unsafe {
        let now = libc::getpriority(libc::PRIO_PROCESS, thread);
        libc::setpriority(libc::PRIO_PROCESS, thread, now + NICER);
    }
}
