//! Ends the process where a piece of its work does not end.
//!
//! A decoder or a network that never comes back would keep its thread for ever, and all later requests would wait for
//! that thread. Callers give up at their own timeout; only a new process, which the supervisor starts at once, has all
//! its threads again. The watchdog's thread sleeps until the oldest piece of work is due, or for as long as one may
//! take: work that begins meanwhile is due later, and need not wake it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

/// How long one photo may take to decode, and one batch to run: more than the largest model takes for 16 images on a
/// small machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Knows the pieces of work, and since when each runs.
#[derive(Debug)]
pub(crate) struct Watchdog {
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    /// Each piece of work under its number, which only grows: the first is the oldest.
    begun: BTreeMap<u64, (Instant, &'static str)>,
    next: u64,
}

/// A piece of work, until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    watchdog: &'a Watchdog,
    number: u64,
}

impl Watchdog {
    /// Starts to watch. A piece of work that takes longer than `patience` is told to `bark`.
    pub(crate) fn start(
        patience: Duration,
        bark: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Arc<Watchdog>> {
        let watchdog = Arc::new(Watchdog { work: Mutex::default() });
        let watching = Arc::clone(&watchdog);
        let name = "watchdog".to_owned();
        thread::Builder::new().name(name).spawn(move || bark(watching.wait_for_overdue(patience)))?;
        Ok(watchdog)
    }

    /// Says that work begins, described as in "decoding an image".
    pub(crate) fn busy(&self, what: &'static str) -> Busy<'_> {
        let mut work = self.lock();
        let number = work.next;
        work.next += 1;
        work.begun.insert(number, (Instant::now(), what));
        Busy { watchdog: self, number }
    }

    fn wait_for_overdue(&self, patience: Duration) -> &'static str {
        loop {
            let oldest = self.lock().begun.values().next().copied();
            let left = oldest.map_or(patience, |(since, _)| patience.saturating_sub(since.elapsed()));
            match oldest {
                Some((_, what)) if left.is_zero() => return what,
                _ => thread::sleep(left),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.watchdog.lock().begun.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_that_does_not_end_is_reported() {
        let (sender, told) = mpsc::channel();
        let watchdog =
            Watchdog::start(Duration::from_millis(20), move |what| sender.send(what.to_owned()).unwrap())
                .unwrap();
        drop(watchdog.busy("something quick"));
        let _never_ends = watchdog.busy("something slow");
        drop(watchdog.busy("something else"));
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), "something slow");
    }

    #[test]
    fn work_that_ends_is_not_reported() {
        let (sender, told) = mpsc::channel::<String>();
        let watchdog =
            Watchdog::start(Duration::from_millis(500), move |what| sender.send(what.to_owned()).unwrap())
                .unwrap();
        let until = Instant::now() + Duration::from_millis(1200);
        while Instant::now() < until {
            let _first = watchdog.busy("a piece of work");
            let _second = watchdog.busy("another one");
        }
        assert!(told.try_recv().is_err());
    }
}
