//! The memory for photos that are fetched and not handed over, which all tables share.
//!
//! A table may take on a photo only where its photos are together no larger than what is free then. So a table whose
//! photos nothing takes over leaves half to the others, two such tables leave a third, and so on, down to the size of a photo.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// In KiB.
#[derive(Debug)]
pub(crate) struct Memory {
    parts: Mutex<Parts>,
    given_back: Notify,
}

#[derive(Debug)]
struct Parts {
    free: u32,
    /// What the tables have, by their numbers.
    taken: HashMap<u32, u32>,
}

/// The part of a photo, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<Memory>,
    table: u32,
    size: u32,
}

impl Memory {
    pub(crate) fn new(size: u32) -> Arc<Memory> {
        let parts = Mutex::new(Parts { free: size, taken: HashMap::new() });
        Arc::new(Memory { parts, given_back: Notify::new() })
    }

    /// Waits until a photo of a table has its part.
    pub(crate) async fn take(self: &Arc<Memory>, table: u32, size: u32) -> Part {
        loop {
            let given_back = self.given_back.notified();
            tokio::pin!(given_back);
            // What is given back from here on counts.
            given_back.as_mut().enable();
            if let Some(part) = self.try_take(table, size) {
                return part;
            }
            given_back.await;
        }
    }

    fn try_take(self: &Arc<Memory>, table: u32, size: u32) -> Option<Part> {
        self.with(|parts| {
            let taken = parts.taken.entry(table).or_default();
            let is_free = size <= parts.free && (*taken == 0 || *taken + size <= parts.free);
            is_free.then(|| {
                *taken += size;
                parts.free -= size;
            })
        })?;
        Some(Part { memory: self.clone(), table, size })
    }

    fn with<R>(&self, act: impl FnOnce(&mut Parts) -> R) -> R {
        act(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Part {
    /// Gives back what the photo does not need.
    pub(crate) fn shrink(&mut self, size: u32) {
        let rest = self.size.saturating_sub(size);
        self.size -= rest;
        self.memory.with(|parts| {
            parts.free += rest;
            if let Some(taken) = parts.taken.get_mut(&self.table) {
                *taken -= rest;
            }
        });
        self.memory.given_back.notify_waiters();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_by(memory: &Arc<Memory>, table: u32) -> Vec<Part> {
        std::iter::from_fn(|| memory.try_take(table, 10)).collect()
    }

    #[test]
    fn tables_that_give_nothing_back_leave_room() {
        let memory = Memory::new(1000);
        let parts: Vec<Vec<Part>> = (1..=5).map(|table| taken_by(&memory, table)).collect();
        let sizes: Vec<usize> = parts.iter().map(|parts| parts.len() * 10).collect();
        assert_eq!(sizes, [500, 250, 130, 60, 30]);
        drop(parts);
        assert_eq!(taken_by(&memory, 6).len(), 50);
        assert_eq!(memory.with(|parts| parts.free), 1000);
    }

    #[test]
    fn a_photo_of_the_largest_size_is_taken_where_all_is_free() {
        let memory = Memory::new(1000);
        let mut part = memory.try_take(1, 1000).expect("all is free");
        assert!(memory.try_take(2, 1).is_none());
        part.shrink(400);
        assert!(memory.try_take(2, 600).is_some());
        assert!(memory.try_take(1, 300).is_none());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_photo_waits_until_there_is_room() {
        let memory = Memory::new(100);
        let part = memory.take(1, 100).await;
        let waiting = memory.take(2, 50);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
        drop(part);
        assert_eq!(waiting.await.size, 50);
    }
}
