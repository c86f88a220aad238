//! The counters since the start, by lane, priority and model.
//!
//! Counters only grow, and are gone with the process. An "inference" is one input that went through a network: a text
//! from the cache, and a photo that was refused, are requests and not inferences. A request is counted before its
//! answer is sent: a client that has the answer finds the request counted.

mod latencies;
mod meter;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pg_clip_wire::Priority;
use serde_json::{Map, Value, json};

use self::meter::Counts;
pub(crate) use self::meter::Meter;

/// The meters of all lanes and models.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    meters: Mutex<BTreeMap<Labels, Arc<Meter>>>,
    failures: Mutex<u64>,
}

/// The lane and the model of a meter; without a name, of all models that have no meter.
type Labels = (Lane, Option<String>);

/// The kinds of work that are counted apart, for any model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Text,
    InteractiveImage,
    BulkImage,
}

/// Names are few where they are those of installed models; beyond so many, models share a meter without a name.
const MOST_NAMES: usize = 64;

impl Lane {
    pub(crate) const ALL: [Lane; 3] = [Lane::Text, Lane::InteractiveImage, Lane::BulkImage];

    pub(crate) fn of_images(priority: Priority) -> Lane {
        match priority {
            Priority::Interactive => Lane::InteractiveImage,
            Priority::Bulk => Lane::BulkImage,
        }
    }

    fn kind(self) -> &'static str {
        if self == Lane::Text { "text" } else { "image" }
    }

    fn priority(self) -> &'static str {
        if self == Lane::BulkImage { "bulk" } else { "interactive" }
    }
}

impl Stats {
    /// The meter of an installed model.
    pub(crate) fn meter(&self, lane: Lane, model: &str) -> Arc<Meter> {
        let mut meters = lock(&self.meters);
        let key = (lane, Some(model.to_owned()));
        if let Some(meter) = meters.get(&key) {
            return Arc::clone(meter);
        }
        let names = meters.keys().filter(|(other, name)| *other == lane && name.is_some()).count();
        let key = if names < MOST_NAMES { key } else { (lane, None) };
        Arc::clone(meters.entry(key).or_default())
    }

    /// The meter of an installed model that was used before, or else the one without a name: a made-up name in a
    /// call makes no meter.
    pub(crate) fn meter_of_any(&self, lane: Lane, name: &str) -> Arc<Meter> {
        let mut meters = lock(&self.meters);
        let named = meters.get(&(lane, Some(name.to_owned()))).map(Arc::clone);
        named.unwrap_or_else(|| Arc::clone(meters.entry((lane, None)).or_default()))
    }

    /// Counts an answer that is a failure, of any request.
    pub(crate) fn count_failure(&self) {
        *lock(&self.failures) += 1;
    }

    /// The sums over all models by their names, for the status report.
    pub(crate) fn totals(&self) -> Map<String, Value> {
        let sum = |lanes: &[Lane], count: fn(&Counts) -> u64| -> u64 {
            let meters = lock(&self.meters);
            let of_lanes = meters.iter().filter(|((lane, _), _)| lanes.contains(lane));
            of_lanes.map(|(_, meter)| count(&meter.counts())).sum()
        };
        let (texts, images) = ([Lane::Text], [Lane::InteractiveImage, Lane::BulkImage]);
        [
            ("text_requests", sum(&texts, |counts| counts.requests)),
            ("text_cache_hits", sum(&texts, |counts| counts.cache_hits)),
            ("text_inferences", sum(&texts, |counts| counts.inferences)),
            ("image_requests", sum(&images, |counts| counts.requests)),
            ("image_inferences", sum(&images, |counts| counts.inferences)),
            ("image_batches", sum(&images, |counts| counts.batches)),
            ("failures", *lock(&self.failures)),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.into()))
        .collect()
    }

    /// A row for each lane and model, for the status report.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let meters = lock(&self.meters);
        let row = |((lane, model), meter): (&Labels, &Arc<Meter>)| {
            let mut row = meter.counts().report();
            row.insert("kind".to_owned(), lane.kind().into());
            row.insert("priority".to_owned(), lane.priority().into());
            row.insert("model".to_owned(), json!(model));
            Value::Object(row)
        };
        meters.iter().map(row).collect()
    }
}

/// Counting leaves nothing half done, so that a panic leaves nothing behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_models_makes_no_meter() {
        let stats = Stats::default();
        for number in 0..1000 {
            stats.meter_of_any(Lane::Text, &format!("absent {number}")).requested();
        }
        stats.meter(Lane::Text, "demo").requested();
        stats.meter_of_any(Lane::Text, "demo").requested();
        stats.meter(Lane::BulkImage, "demo").requested();
        let rows: Vec<_> =
            stats.rows().iter().map(|row| (row["model"].clone(), row["requests"].clone())).collect();
        assert_eq!(rows, [(Value::Null, 1000.into()), ("demo".into(), 2.into()), ("demo".into(), 1.into())]);
        assert_eq!(
            (&stats.totals()["text_requests"], &stats.totals()["image_requests"]),
            (&1002.into(), &1.into())
        );
    }

    #[test]
    fn models_beyond_the_bound_share_a_meter() {
        let stats = Stats::default();
        for number in 0..1000 {
            stats.meter(Lane::BulkImage, &format!("model {number}")).requested();
        }
        assert_eq!(stats.rows().len(), MOST_NAMES + 1);
        assert_eq!(stats.rows()[0]["requests"], 1000 - MOST_NAMES);
    }
}
