//! Waiting for conditions: the only place that sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// Waits until the condition gives a value; panics with its name after the deadline.
#[track_caller]
pub fn wait_for<T>(name: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    let Some(value) = found_within(deadline, condition) else {
        panic!("not within {deadline:?}: {name}");
    };
    value
}

/// Waits until the condition holds; panics with its name after the deadline.
#[track_caller]
pub fn wait_until(name: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(name, deadline, || condition().then_some(()));
}

/// Waits until the condition gives a value, or the deadline has passed.
pub(crate) fn found_within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() >= deadline {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
