//! The errors of files that are broken or not supported.

use super::super::format::Format;
use crate::error::Error;

pub(super) fn broken(format: Format, reason: impl ToString) -> Error {
    Error::BrokenImage { format: format.name(), reason: reason.to_string() }
}

pub(super) fn unsupported(format: Format, reason: &str) -> Error {
    Error::UnsupportedFeature { format: format.name(), reason: reason.to_owned() }
}
