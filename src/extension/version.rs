//! Which release this library is of.

/// The version of this library, and of the extension that it belongs to.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
