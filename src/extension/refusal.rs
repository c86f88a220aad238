//! Refusing a call: an error with a reason, which has a SQLSTATE, and words.

use crate::error::Error;
pub(crate) use crate::reason::Reason;
use crate::reason::Refusal;

pub(crate) fn refuse(reason: Reason, message: impl Into<String>) -> Error {
    Error::Refused(Box::new(Refusal { reason, message: message.into(), detail: None, hint: None }))
}

impl Error {
    /// Adds a detail to a refusal.
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Error {
        if let Error::Refused(refusal) = &mut self {
            refusal.detail = Some(detail.into());
        }
        self
    }

    /// Adds a hint to a refusal.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Error {
        if let Error::Refused(refusal) = &mut self {
            refusal.hint = Some(hint.into());
        }
        self
    }
}
