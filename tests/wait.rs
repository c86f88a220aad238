//! Waiting for what takes its time: the only place that sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// Waits until the condition gives a value; panics with its name after the deadline.
#[track_caller]
pub fn wait_for<T>(name: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {name}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits until the condition holds; panics with its name after the deadline.
#[track_caller]
pub fn wait_until(name: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(name, deadline, || condition().then_some(()));
}
