//! The metadata of a file that may hold the orientation.

use std::borrow::Cow;

/// The metadata that may say how a picture is turned.
#[derive(Default)]
pub(super) struct Metadata<'a> {
    pub(super) exif: Option<Cow<'a, [u8]>>,
    pub(super) xmp: Option<Cow<'a, [u8]>>,
}
