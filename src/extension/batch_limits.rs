//! How much a process of the server reads and sends at once, in a statement as in the queue.

/// The most photos of a batch.
pub(crate) const MOST_PHOTOS: usize = 32;

/// The most bytes of a batch, beside one photo. A backend holds one batch, and a queue worker two.
pub(crate) const MOST_BYTES: usize = 64 << 20;
