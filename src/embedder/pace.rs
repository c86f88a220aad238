//! How fast a network is, as its last runs showed it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The time of one input in a run, in nanoseconds: a moving average. Zero before the first run.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

/// The weight of a new run is one in so many: a run that was slow by chance changes little.
const REMEMBERED_RUNS: u64 = 8;

impl Pace {
    /// Notes that a run over so many inputs took so long. Runs that end together may count as one.
    pub(crate) fn ran(&self, inputs: usize, time: Duration) {
        let each = nanoseconds(time) / (inputs as u64).max(1);
        let before = self.0.load(Ordering::Relaxed);
        let average =
            if before == 0 { each } else { before - before / REMEMBERED_RUNS + each / REMEMBERED_RUNS };
        self.0.store(average, Ordering::Relaxed);
    }

    /// How many inputs a run within this time can have, at least one; one before the first run.
    pub(crate) fn most_within(&self, time: Duration) -> usize {
        let each = self.0.load(Ordering::Relaxed);
        let most = nanoseconds(time).checked_div(each).unwrap_or(1);
        usize::try_from(most).unwrap_or(usize::MAX).max(1)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_as_many_as_its_time_allows() {
        let (pace, ms) = (Pace::default(), Duration::from_millis);
        assert_eq!(pace.most_within(ms(250)), 1, "nothing is known");
        pace.ran(4, ms(40));
        assert_eq!(pace.most_within(ms(250)), 25);
        (0..100).for_each(|_| pace.ran(1, ms(100)));
        assert_eq!(pace.most_within(ms(250)), 2);
        (0..100).for_each(|_| pace.ran(1, ms(1000)));
        assert_eq!(pace.most_within(ms(250)), 1, "one at least");
    }

    #[test]
    fn one_slow_run_changes_little() {
        let pace = Pace::default();
        (0..100).for_each(|_| pace.ran(1, Duration::from_millis(10)));
        pace.ran(1, Duration::from_millis(100));
        assert_eq!(pace.most_within(Duration::from_millis(250)), 11);
    }
}
