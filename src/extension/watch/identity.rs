//! The text in a model column: the model that made a vector.

use std::fmt::Write;

use pg_clip_wire::Fingerprint;

/// The text of the model column: the name, by which the model can be called, and the start of the fingerprint, by
/// which two models of one name differ.
pub(crate) fn identity(model: &str, fingerprint: &Fingerprint) -> String {
    const SHOWN: usize = 6;
    fingerprint[..SHOWN].iter().fold(format!("{model}@"), |mut identity, byte| {
        // Writing to a String does not fail.
        let _ = write!(identity, "{byte:02x}");
        identity
    })
}

/// The name in an identity.
pub(crate) fn name_of(identity: &str) -> &str {
    identity.rsplit_once('@').map_or(identity, |(name, _)| name)
}
