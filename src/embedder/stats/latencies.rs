//! How long something took lately.

use std::mem;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// The times of the last five to ten minutes: of the running five minutes, and of the five before. The counters
/// tell the whole; a percentile over days would tell nothing of now.
///
/// A time is kept in microseconds, to two significant digits: a percentile is within 1 % of the exact one, or 1 µs.
#[derive(Debug)]
pub(super) struct Latencies {
    current: Histogram<u32>,
    previous: Histogram<u32>,
    /// When `current` began.
    since: Option<Instant>,
}

const PERIOD: Duration = Duration::from_secs(5 * 60);
const SIGNIFICANT_DIGITS: u8 = 2;

/// A longer time counts as this, so that the histogram stays small.
const LONGEST: Duration = Duration::from_secs(60 * 60);

impl Latencies {
    pub(super) fn record(&mut self, now: Instant, time: Duration) {
        self.turn(now);
        let micros = u64::try_from(time.min(LONGEST).as_micros()).expect("an hour fits");
        // The histogram grows to its largest value, and values are bounded.
        let _ = self.current.record(micros);
    }

    /// The time that so many of a hundred did not exceed, or None where nothing was recorded lately.
    pub(super) fn percentile(&mut self, now: Instant, percent: u8) -> Option<Duration> {
        self.turn(now);
        let mut both = self.current.clone();
        // Both are of the same kind and grow.
        let _ = both.add(&self.previous);
        // Without the last digits of the quotient, which would lift a whole rank to the next one.
        let quantile = f64::from(percent) / 100.0 * (1.0 - 1e-9);
        let micros = both.value_at_quantile(quantile);
        (!both.is_empty()).then(|| Duration::from_micros(micros))
    }

    /// Begins another period where the current one is over.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age < PERIOD {
            return;
        }
        mem::swap(&mut self.current, &mut self.previous);
        self.current.reset();
        if age >= 2 * PERIOD {
            self.previous.reset();
        }
        self.since = Some(now);
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        let empty = || Histogram::new(SIGNIFICANT_DIGITS).expect("two digits are allowed");
        Latencies { current: empty(), previous: empty(), since: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times: &[Duration]) -> Latencies {
        let mut latencies = Latencies::default();
        times.iter().for_each(|time| latencies.record(Instant::now(), *time));
        latencies
    }

    #[test]
    fn the_percentiles_of_1_to_100_ms_are_themselves() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let mut latencies = of(&times);
        for percent in [1, 50, 95, 99, 100] {
            let exact = Duration::from_millis(percent.into());
            let found = latencies.percentile(Instant::now(), percent).unwrap();
            assert!(found.abs_diff(exact) <= exact / 100, "p{percent}: {found:?}");
        }
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(Latencies::default().percentile(Instant::now(), 50), None);
    }

    #[test]
    fn a_time_beyond_the_longest_counts_as_it() {
        let found = of(&[Duration::MAX]).percentile(Instant::now(), 50).unwrap();
        assert!(found.abs_diff(LONGEST) <= LONGEST / 100, "{found:?}");
    }

    #[test]
    fn a_time_older_than_two_periods_is_forgotten() {
        let start = Instant::now();
        let mut latencies = Latencies::default();
        latencies.record(start, Duration::from_secs(1));
        latencies.record(start + PERIOD, Duration::from_secs(2));
        let p50 = |latencies: &mut Latencies, at| latencies.percentile(at, 50).map(|time| time.as_secs());
        assert_eq!(p50(&mut latencies, start + PERIOD), Some(1), "both are there");
        assert_eq!(p50(&mut latencies, start + 2 * PERIOD), Some(2), "the first is gone");
        assert_eq!(p50(&mut latencies, start + 3 * PERIOD), None, "both are gone");
        latencies.record(start + 3 * PERIOD, Duration::from_secs(3));
        assert_eq!(p50(&mut latencies, start + 9 * PERIOD), None, "after a long silence");
    }

    #[test]
    fn percentiles_of_anything_are_within_one_percent_of_exact_ones() {
        // Times of all magnitudes from 1 µs to 100 s, by a fixed rule.
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        for count in [1, 2, 3, 10, 99, 100, 101, 5000] {
            let mut micros: Vec<u64> =
                (0..count).map(|_| next() % 10u64.pow(1 + (next() % 8) as u32)).collect();
            let times: Vec<Duration> = micros.iter().copied().map(Duration::from_micros).collect();
            let mut latencies = of(&times);
            micros.sort_unstable();
            for percent in 1..=100 {
                let found = latencies.percentile(Instant::now(), percent).unwrap().as_micros() as u64;
                let exact = micros[(count * usize::from(percent)).div_ceil(100) - 1];
                assert!(
                    found.abs_diff(exact) <= (exact / 100).max(1),
                    "p{percent} of {count}: {found} for {exact}"
                );
            }
        }
    }
}
