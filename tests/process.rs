//! The server's processes, as /proc shows them.

use std::fs;

pub use nix::sys::signal::Signal;
use nix::unistd::Pid;

#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// Its arguments, or the title that a process of PostgreSQL gives itself.
    pub command_line: String,
}

/// The processes below this one, nearest first.
pub fn descendants(pid: u32) -> Vec<Process> {
    let all = all();
    let mut pids = vec![pid];
    let mut found = Vec::new();
    let mut next = 0;
    while next < pids.len() {
        let children = all.iter().filter(|process| process.parent == pids[next]);
        found.extend(children.cloned());
        pids = std::iter::once(pid).chain(found.iter().map(|process| process.pid)).collect();
        next += 1;
    }
    found
}

/// Whether the process is there and has not ended.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// Sends a signal to a process that is there.
#[track_caller]
pub fn send(pid: u32, signal: Signal) {
    assert!(try_send(pid, signal), "process {pid} is there");
}

/// Sends a signal to a process, and returns whether it was there.
pub fn try_send(pid: u32, signal: Signal) -> bool {
    let number = i32::try_from(pid).expect("a process id");
    nix::sys::signal::kill(Pid::from_raw(number), signal).is_ok()
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is read").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| {
        let (_, parent) = stat(pid)?;
        let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ").trim_end().to_owned();
        Some(Process { pid, parent, command_line })
    })
    .collect()
}

/// The state and the parent of a process; `None` where it is gone.
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, a parenthesis too.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
