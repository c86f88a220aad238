//! What pg_clip costs, measured through SQL on a throwaway cluster with the demo model.
//!
//! `cargo xtask bench` builds and installs in release mode and runs this. Each line is a median, or a percentile, of several tries
//! in this one run, and where two things are compared, they take turns: the machine may be busy with other work.

mod backlog;
mod calls;
mod deaths;
mod memory;
mod queue;
mod tally;

fn main() {
    calls::measure();
    backlog::measure();
    queue::measure();
    memory::measure();
    deaths::measure();
}
