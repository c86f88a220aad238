//! What the embedder counts since it started.
//!
//! An "inference" is one input that went through a network: a text from the cache, and a photo that was refused, are
//! requests and not inferences.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

/// The counters. Each only grows.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub text_requests: Counter,
    pub text_cache_hits: Counter,
    pub text_inferences: Counter,
    pub image_requests: Counter,
    pub image_inferences: Counter,
    pub image_batches: Counter,
    pub failures: Counter,
}

impl Stats {
    /// All counters by their names, for the status report.
    pub(crate) fn report(&self) -> Map<String, Value> {
        [
            ("text_requests", &self.text_requests),
            ("text_cache_hits", &self.text_cache_hits),
            ("text_inferences", &self.text_inferences),
            ("image_requests", &self.image_requests),
            ("image_inferences", &self.image_inferences),
            ("image_batches", &self.image_batches),
            ("failures", &self.failures),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.get().into()))
        .collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
