//! A store's answer about an object: its bytes, or why there are none.

/// The bytes of an object, or why there are none.
pub type Fetch = Result<Vec<u8>, NoObject>;

#[derive(Debug, Clone)]
pub struct NoObject {
    pub why: Why,
    /// For the owner of the table, in `clip_failures`.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The store has no such object.
    Missing,
    /// The store does not give it to the feeder.
    Forbidden,
    /// The reference is no key, or leads elsewhere.
    Refused,
    /// It exceeds the limit.
    TooLarge,
    /// The next try may go well.
    Passing,
    /// The store gives nothing now: this says nothing of the object.
    Away,
}

impl NoObject {
    pub(super) fn new(why: Why, message: impl Into<String>) -> NoObject {
        NoObject { why, message: message.into() }
    }
}

/// Refuses an object above the limit.
pub(super) fn check_size(key: &str, size: u64, limit: u64) -> Result<(), NoObject> {
    if size <= limit {
        return Ok(());
    }
    let message = format!("\"{key}\" has {size} bytes, more than clip.max_image_bytes ({limit})");
    Err(NoObject::new(Why::TooLarge, message))
}
