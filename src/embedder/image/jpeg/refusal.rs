//! The errors of broken files.

use crate::error::Error;

pub(super) fn broken(reason: &str) -> Error {
    Error::BrokenImage { format: "JPEG", reason: reason.to_owned() }
}

/// A part of the file that breaks the format.
pub(super) fn bad(part: &str) -> Error {
    broken(&format!("it has a bad {part}"))
}
