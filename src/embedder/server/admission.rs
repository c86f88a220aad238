//! How much the embedder takes on.
//!
//! Requests that wait are counted, and refused beyond the backlog. The bytes of requests are budgeted, texts, interactive
//! images and bulk images apart, so that nobody who waits does so for a backfill's photos; a request that finds no room
//! waits on its socket, which is how its backend comes to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pg_clip_wire::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// What all connections together may hold.
#[derive(Debug)]
pub(super) struct Admission {
    backlog: usize,
    waiting: Arc<AtomicUsize>,
    interactive_images: Arc<Semaphore>,
    bulk_images: Arc<Semaphore>,
    texts: Arc<Semaphore>,
}

/// A request that was taken on; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// The bytes of all images of one priority that are not decoded yet. A single larger image takes it whole.
const IMAGE_BYTES: usize = 256 << 20;
const TEXT_BYTES: usize = 64 << 20;

impl Admission {
    pub(super) fn new(backlog: usize) -> Admission {
        Admission {
            backlog,
            waiting: Arc::default(),
            interactive_images: Arc::new(Semaphore::new(IMAGE_BYTES)),
            bulk_images: Arc::new(Semaphore::new(IMAGE_BYTES)),
            texts: Arc::new(Semaphore::new(TEXT_BYTES)),
        }
    }

    /// Takes a request on, or refuses it because too many wait already.
    pub(super) fn admit(&self) -> Result<Waiting, Error> {
        let admitted = Waiting(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.backlog {
            Ok(admitted)
        } else {
            Err(Error::Overloaded { limit: self.backlog })
        }
    }

    /// Waits for room for an image of so many bytes.
    pub(super) async fn image_bytes(&self, priority: Priority, length: usize) -> OwnedSemaphorePermit {
        let images = match priority {
            Priority::Interactive => &self.interactive_images,
            Priority::Bulk => &self.bulk_images,
        };
        acquire(images, length.min(IMAGE_BYTES)).await
    }

    /// Waits for room for a text of so many bytes.
    pub(super) async fn text_bytes(&self, length: usize) -> OwnedSemaphorePermit {
        acquire(&self.texts, length.min(TEXT_BYTES)).await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, bytes: usize) -> OwnedSemaphorePermit {
    let bytes = u32::try_from(bytes).expect("both budgets fit in 32 bits");
    Arc::clone(semaphore).acquire_many_owned(bytes).await.expect("the budgets are never closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_is_held_to() {
        let admission = Admission::new(2);
        let first = admission.admit().unwrap();
        let _second = admission.admit().unwrap();
        assert!(matches!(admission.admit(), Err(Error::Overloaded { limit: 2 })));
        drop(first);
        assert!(admission.admit().is_ok());
    }
}
