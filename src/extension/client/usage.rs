//! The work that this process had done by the embedder, as PostgreSQL's `pgBufferUsage` counts buffers: counters
//! that only grow. The usage of a statement is a difference.

use std::cell::Cell;
use std::ops::Sub;
use std::time::Duration;

use pg_clip_wire::Work;

use super::Input;

/// Numbers of inputs that were embedded, and the times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) texts: u64,
    pub(crate) images: u64,
    /// How many of these needed no run of the network.
    pub(crate) cached: u64,
    /// The embedder's time to tokenize texts, and to decode and resize images.
    pub(crate) preparation: Duration,
    /// The embedder's time in the network; of a batch, each input's share.
    pub(crate) inference: Duration,
    /// How long this process waited. It can be less than the sum of the others, which go on beside each other.
    pub(crate) total: Duration,
}

thread_local! {
    static USAGE: Cell<Usage> = const { Cell::new(Usage::ZERO) };
}

impl Usage {
    const ZERO: Usage = Usage {
        texts: 0,
        images: 0,
        cached: 0,
        preparation: Duration::ZERO,
        inference: Duration::ZERO,
        total: Duration::ZERO,
    };

    /// Since the process began.
    pub(crate) fn now() -> Usage {
        USAGE.get()
    }

    /// How many inputs were embedded.
    pub(crate) fn inputs(self) -> u64 {
        self.texts + self.images
    }

    pub(super) fn count_embedding(input: Input, work: Work) {
        let mut usage = USAGE.get();
        match input {
            Input::Text(_) => usage.texts += 1,
            Input::Image(_) => usage.images += 1,
        }
        usage.cached += u64::from(work.inference().is_none());
        usage.preparation += work.preparation();
        usage.inference += work.inference().unwrap_or_default();
        USAGE.set(usage);
    }

    pub(super) fn count_wait(time: Duration) {
        let usage = USAGE.get();
        USAGE.set(Usage { total: usage.total + time, ..usage });
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            texts: self.texts - before.texts,
            images: self.images - before.images,
            cached: self.cached - before.cached,
            preparation: self.preparation - before.preparation,
            inference: self.inference - before.inference,
            total: self.total - before.total,
        }
    }
}
