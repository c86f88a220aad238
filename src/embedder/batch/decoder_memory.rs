//! The memory that all decoders together may take.
//!
//! A small file can claim hundreds of megabytes, and every thread could decode one. So a decoder takes the memory that
//! its image was reckoned to need before it begins, and gives it back at its end. Decoders take turns: small images do
//! not pass a large one for ever, and a decoder waits only for images that are being decoded already.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// A budget of bytes.
#[derive(Debug)]
pub(super) struct DecoderMemory {
    limit: u64,
    state: Mutex<State>,
    /// Bytes came back, or a turn is over.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: u64,
    next_number: u64,
    /// The number whose turn it is.
    turn: u64,
}

/// Bytes of the budget, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    memory: &'a DecoderMemory,
    bytes: u64,
}

impl DecoderMemory {
    pub(super) fn new(limit: u64) -> DecoderMemory {
        DecoderMemory { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Waits for so many bytes; refuses more than there will ever be.
    pub(super) fn take(&self, bytes: u64) -> Result<Taken<'_>, Error> {
        if bytes > self.limit {
            return Err(Error::AllDecodersMemory { needed: bytes, limit: self.limit });
        }
        let mut state = self.lock();
        let number = state.next_number;
        state.next_number += 1;
        while state.turn != number || state.taken + bytes > self.limit {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.taken += bytes;
        drop(state);
        self.changed.notify_all();
        Ok(Taken { memory: self, bytes })
    }

    /// No step under the lock leaves the state half changed, so that a panic leaves nothing behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.memory.lock().taken -= self.bytes;
        self.memory.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn decoders_never_have_more_than_the_budget() {
        let memory = DecoderMemory::new(100);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..8 {
                let (memory, held, most) = (&memory, &held, &most);
                scope.spawn(move || {
                    for round in 0..200 {
                        let bytes = 1 + (thread * 13 + round * 7) % 100;
                        let _taken = memory.take(bytes).unwrap();
                        let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=100).contains(&most.into_inner()));
        assert_eq!(memory.lock().taken, 0);
    }

    #[test]
    fn an_image_that_needs_more_than_the_budget_is_refused() {
        let memory = DecoderMemory::new(100);
        assert!(matches!(memory.take(101), Err(Error::AllDecodersMemory { needed: 101, limit: 100 })));
        drop(memory.take(100).unwrap());
        memory.take(100).unwrap();
    }
}
