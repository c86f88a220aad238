//! What a file holds beside its picture.

use std::borrow::Cow;

/// What may say how a picture is turned.
#[derive(Default)]
pub(super) struct Metadata<'a> {
    pub(super) exif: Option<Cow<'a, [u8]>>,
    pub(super) xmp: Option<Cow<'a, [u8]>>,
}
