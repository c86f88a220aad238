//! The embeddings of recent texts.
//!
//! People search for the same few things. The key is the model's fingerprint and the token ids, so that two
//! spellings with the same tokens are one entry, and the vectors of a model that was exchanged never answer for its
//! successor.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use pg_clip_wire::Fingerprint;

/// How many texts are remembered: 8 MiB of vectors at 512 dimensions.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The most recently used texts and their vectors.
#[derive(Debug)]
pub(crate) struct Cache(LruCache<(Fingerprint, Arc<[u32]>), Vec<f32>>);

impl Cache {
    pub(crate) fn new() -> Cache {
        Cache(LruCache::new(CAPACITY))
    }

    /// The vector of these tokens, if it is remembered.
    pub(crate) fn get(&mut self, fingerprint: Fingerprint, ids: &Arc<[u32]>) -> Option<Vec<f32>> {
        self.0.get(&(fingerprint, Arc::clone(ids))).cloned()
    }

    pub(crate) fn put(&mut self, fingerprint: Fingerprint, ids: Arc<[u32]>, vector: Vec<f32>) {
        self.0.put((fingerprint, ids), vector);
    }
}
