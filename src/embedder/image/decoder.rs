//! The limits of the decoders of the crate `image`, and the meaning of their refusals.

use image::{ImageError, Limits};

use super::memory::MAX_DECODER_MEMORY;
use crate::error::Error;

/// A decoder's limits: so many bytes of memory.
pub(super) fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(bytes);
    limits
}

/// The decoder's error, as an application sees it.
pub(super) fn refusal(format: &'static str, error: ImageError) -> Error {
    match error {
        ImageError::Limits(_) => Error::DecoderMemory { limit: MAX_DECODER_MEMORY },
        ImageError::Unsupported(error) => Error::UnsupportedFeature { format, reason: error.to_string() },
        error => Error::BrokenImage { format, reason: error.to_string() },
    }
}
