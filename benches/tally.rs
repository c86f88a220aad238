//! Collecting and printing measurements.

use std::time::{Duration, Instant};

/// How long an action takes.
pub(crate) fn time(action: impl FnOnce()) -> Duration {
    let start = Instant::now();
    action();
    start.elapsed()
}

/// The middle one; of an even number, the upper of the two.
pub(crate) fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile<T: Ord + Copy>(percent: usize, values: &mut [T]) -> T {
    values.sort_unstable();
    values[(values.len() * percent).div_ceil(100).saturating_sub(1)]
}

/// Prints one line of the report.
pub(crate) fn report(what: &str, value: &str) {
    println!("{what:<72} {value}");
}

/// Prints the median of times, in milliseconds, and their number.
pub(crate) fn report_times(what: &str, times: &mut [Duration]) {
    let count = times.len();
    report(what, &format!("{:9.2} ms (median of {count})", milliseconds(median(times))));
}

/// Prints a percentile of times, in milliseconds, and their number.
pub(crate) fn report_times_at(percent: usize, what: &str, times: &mut [Duration]) {
    let count = times.len();
    report(what, &format!("{:9.2} ms (p{percent} of {count})", milliseconds(percentile(percent, times))));
}

/// Prints how many of something were done in a second.
pub(crate) fn report_rate(what: &str, count: usize, time: Duration) {
    let count = f64::from(u32::try_from(count).expect("a few"));
    report(what, &format!("{:9.1} a second", count / time.as_secs_f64()));
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
