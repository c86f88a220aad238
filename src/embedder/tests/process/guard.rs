//! Guardian, embedder and their children end together, and the guardian's status is 0 or 1.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::embedder::{Embedder, PATIENCE};

#[test]
fn the_servers_death_is_status_1_and_a_line_of_the_log() {
    let mut guard = Embedder::start("guard");
    kill(server(&guard), Signal::SIGKILL).unwrap();
    assert_eq!(guard.wait().code(), Some(1));
    let log = guard.logged();
    assert!(log.contains("WARNING: embedder process") && log.contains("was killed by SIGKILL"), "{log}");
}

#[test]
fn the_supervisors_death_is_the_end_of_both() {
    let mut guard = Embedder::start("guard");
    let server = server(&guard);
    guard.log = None;
    assert_eq!(guard.wait().code(), Some(0));
    assert_gone(server);
}

#[test]
fn a_signal_is_the_end_of_both() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut guard = Embedder::start("guard");
        let server = server(&guard);
        kill(process(&guard), signal).unwrap();
        assert_eq!(guard.wait().code(), Some(0), "{signal}");
        assert_gone(server);
    }
}

#[test]
fn the_guardians_death_is_the_end_of_the_server() {
    let mut guard = Embedder::start("guard");
    let server = server(&guard);
    kill(process(&guard), Signal::SIGKILL).unwrap();
    guard.wait();
    assert_gone(server);
}

#[test]
fn a_stopped_server_is_killed_too() {
    let mut guard = Embedder::start("guard");
    let server = server(&guard);
    kill(server, Signal::SIGSTOP).unwrap();
    guard.log = None;
    assert_eq!(guard.wait().code(), Some(0));
    assert_gone(server);
}

#[test]
fn other_signals_do_nothing() {
    let guard = Embedder::start("guard");
    server(&guard);
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGPIPE] {
        kill(process(&guard), signal).unwrap();
    }
    assert_eq!(guard.status()["restarts"], 0);
}

#[test]
fn the_server_is_the_first_that_the_kernel_kills() {
    let guard = Embedder::start("guard");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", server(&guard))).unwrap();
    assert_eq!(score.trim(), "1000");
}

#[test]
fn the_guardian_passes_on_no_descriptor_of_its_own() {
    let guard = Embedder::start("guard");
    let signalfd = |process: Pid| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        targets.any(|target| target.to_string_lossy().contains("signalfd"))
    };
    assert!(!signalfd(server(&guard)));
    assert!(signalfd(process(&guard)));
}

#[test]
fn a_server_that_cannot_start_is_status_1_and_says_why() {
    let models = crate::embedder::models_directory();
    let mut guard = Embedder::start_with("guard", &models, "demo", &["--threads", "abacus"]);
    assert_eq!(guard.wait().code(), Some(1));
    assert!(guard.logged().contains("abacus"));
}

fn process(guard: &Embedder) -> Pid {
    Pid::from_raw(guard.process.id() as i32)
}

/// The process that serves, once it does.
fn server(guard: &Embedder) -> Pid {
    let pid = guard.status()["pid"].as_i64().unwrap();
    Pid::from_raw(pid.try_into().unwrap())
}

fn assert_gone(process: Pid) {
    let started = Instant::now();
    while !is_gone(process) {
        assert!(started.elapsed() < PATIENCE, "process {process} is still there");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A zombie that no process reaps, as in a container without an init, is gone too.
fn is_gone(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    kill(process, None) == Err(Errno::ESRCH) || stat.contains(") Z ")
}
