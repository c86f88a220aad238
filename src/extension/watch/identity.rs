//! What a model column says of the model that made a vector.

use std::fmt::Write;

use pg_clip_wire::Fingerprint;

/// What the model column says: the name, by which the model can be called, and the start of the fingerprint, which
/// tells two models of one name apart.
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
