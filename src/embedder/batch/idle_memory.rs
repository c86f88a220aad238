//! Free memory goes back to the system once no image has come for a while.
//!
//! The allocator keeps freed memory, for each thread apart: after a bulk of ViT-B/32 in fp32, a third of the size
//! of its weights. It is not given back between two images, for each page of it would be made anew for the next
//! one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When images were embedded last.
#[derive(Debug)]
pub(super) struct IdleMemory {
    idle: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing where the memory that was freed since is given back.
    last_use: Option<Instant>,
    closed: bool,
}

impl IdleMemory {
    /// `idle` is for how long no image has come when the memory is given back.
    pub(super) fn new(idle: Duration) -> IdleMemory {
        IdleMemory { idle, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Says that images have been embedded.
    pub(super) fn used(&self) {
        if self.lock().last_use.replace(Instant::now()).is_none() {
            self.changed.notify_one();
        }
    }

    /// Calls `give_back` each time that no image has come for a while; returns when this is closed.
    pub(super) fn watch(&self, give_back: impl Fn()) {
        let mut state = self.lock();
        while !state.closed {
            let Some(last) = state.last_use else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = self.idle.saturating_sub(last.elapsed());
            if left.is_zero() {
                state.last_use = None;
                drop(state);
                give_back();
                state = self.lock();
            } else {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// No step under the lock leaves the state half changed, so that a panic leaves nothing behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn memory_is_given_back_once_after_each_use_and_not_before_it_is_idle() {
        let memory = IdleMemory::new(Duration::from_millis(20));
        let (given, seen) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| memory.watch(move || given.send(Instant::now()).unwrap()));
            for _ in 0..2 {
                let mut last = Instant::now();
                for _ in 0..50 {
                    last = Instant::now();
                    memory.used();
                }
                assert!(seen.recv_timeout(PATIENCE).unwrap() >= last + Duration::from_millis(20));
            }
            memory.close();
        });
        assert!(seen.try_recv().is_err());
    }
}
