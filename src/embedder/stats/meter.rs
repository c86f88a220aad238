//! The counters and latencies of one lane and model.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pg_clip_wire::FailureKind;
use serde_json::{Map, Value, json};

use super::latencies::Latencies;

/// The counters that the threads of a lane write to. Each call takes a lock that no thread holds for long.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Counts>);

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    answers: u64,
    abandoned: u64,
    failures: BTreeMap<u8, u64>,
    pub(super) cache_hits: u64,
    pub(super) inferences: u64,
    pub(super) batches: u64,
    batch_sizes: BTreeMap<usize, u64>,
    image_bytes: u64,
    wait: Latencies,
    decode: Latencies,
    resize: Latencies,
    tokenize: Latencies,
    inference: Latencies,
    answer: Latencies,
    total: Latencies,
}

impl Meter {
    pub(crate) fn requested(&self) {
        self.counts().requests += 1;
    }

    /// An image of so many bytes was decoded and, unless it was refused, resized, which is part of the time.
    pub(crate) fn prepared(&self, bytes: usize, time: Duration, resizing: Option<Duration>) {
        let (mut counts, now) = (self.counts(), Instant::now());
        counts.image_bytes += bytes as u64;
        counts.decode.record(now, time.saturating_sub(resizing.unwrap_or_default()));
        if let Some(resizing) = resizing {
            counts.resize.record(now, resizing);
        }
    }

    /// A text was made token ids.
    pub(crate) fn tokenized(&self, time: Duration) {
        self.counts().tokenize.record(Instant::now(), time);
    }

    /// A request was answered without a run of the network, after it had waited.
    pub(crate) fn hit(&self, waited: Duration) {
        let mut counts = self.counts();
        counts.cache_hits += 1;
        counts.wait.record(Instant::now(), waited);
    }

    /// The network ran over a batch, whose inputs had waited.
    pub(crate) fn ran(&self, waited: &[Duration], time: Duration) {
        let mut counts = self.counts();
        counts.batches += 1;
        counts.inferences += waited.len() as u64;
        *counts.batch_sizes.entry(waited.len()).or_default() += 1;
        let now = Instant::now();
        for waited in waited {
            counts.wait.record(now, *waited);
            counts.inference.record(now, time);
        }
    }

    /// A request is answered, with an embedding or a failure.
    pub(crate) fn answered(&self, failure: Option<FailureKind>, time: Duration) {
        let mut counts = self.counts();
        match failure {
            None => counts.answers += 1,
            Some(kind) => *counts.failures.entry(kind as u8).or_default() += 1,
        }
        counts.total.record(Instant::now(), time);
    }

    /// An answer was written so long after it was ready: answers to one connection keep the order of its requests.
    pub(crate) fn delivered(&self, time: Duration) {
        self.counts().answer.record(Instant::now(), time);
    }

    /// The backend of a request has gone before its answer.
    pub(crate) fn abandoned(&self) {
        self.counts().abandoned += 1;
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counting leaves nothing half done, so that a panic leaves nothing behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// All of it by name. Failures go by the number that their kind has on the wire, batches by their size; times are
    /// in milliseconds, and null where there was nothing to measure.
    pub(super) fn report(&mut self) -> Map<String, Value> {
        let mut report = Map::new();
        let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
        put("requests", self.requests.into());
        put("answers", self.answers.into());
        put("abandoned", self.abandoned.into());
        put("failures", json!(self.failures));
        put("cache_hits", self.cache_hits.into());
        put("inferences", self.inferences.into());
        put("batches", self.batches.into());
        put("batch_sizes", json!(self.batch_sizes));
        put("image_bytes", self.image_bytes.into());
        let now = Instant::now();
        for (name, latencies) in [
            ("wait", &mut self.wait),
            ("decode", &mut self.decode),
            ("resize", &mut self.resize),
            ("tokenize", &mut self.tokenize),
            ("inference", &mut self.inference),
            ("answer", &mut self.answer),
            ("total", &mut self.total),
        ] {
            for percent in [50, 95, 99] {
                let time = latencies.percentile(now, percent);
                put(&format!("{name}_p{percent}_ms"), json!(time.map(|time| time.as_secs_f64() * 1e3)));
            }
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_under_its_name() {
        let meter = Meter::default();
        let ms = Duration::from_millis;
        (0..6).for_each(|_| meter.requested());
        meter.prepared(1000, ms(5), Some(ms(2)));
        meter.prepared(500, ms(3), None);
        meter.tokenized(ms(4));
        meter.delivered(ms(6));
        meter.ran(&[ms(1), ms(1)], ms(20));
        meter.hit(ms(1));
        (0..3).for_each(|_| meter.answered(None, ms(30)));
        meter.answered(Some(FailureKind::UndecodableImage), ms(30));
        meter.answered(Some(FailureKind::UndecodableImage), ms(30));
        meter.abandoned();
        let report = meter.counts().report();
        for (name, value) in [
            ("requests", json!(6)),
            ("answers", json!(3)),
            ("abandoned", json!(1)),
            ("failures", json!({ "2": 2 })),
            ("cache_hits", json!(1)),
            ("inferences", json!(2)),
            ("batches", json!(1)),
            ("batch_sizes", json!({ "2": 1 })),
            ("image_bytes", json!(1500)),
        ] {
            assert_eq!(report[name], value, "{name}");
        }
        for (name, milliseconds) in [
            ("wait", 1.0),
            ("decode", 3.0),
            ("resize", 2.0),
            ("tokenize", 4.0),
            ("inference", 20.0),
            ("answer", 6.0),
            ("total", 30.0),
        ] {
            let p95 = report[&format!("{name}_p95_ms")].as_f64().unwrap();
            assert!((p95 / milliseconds - 1.0).abs() <= 0.01, "{name}: {p95}");
        }
        assert_eq!(Meter::default().counts().report()["total_p99_ms"], Value::Null);
    }
}
