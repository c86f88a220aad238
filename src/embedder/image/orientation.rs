//! How a picture is turned, as Pillow's `ImageOps.exif_transpose` finds it.
//!
//! The EXIF directory says it, or the XMP packet where the directory does not. Metadata that cannot be read turns
//! nothing: the picture itself may be whole. The tests hold this against Pillow 11.3.

use image::metadata::Orientation;

use super::format::Format;
use super::metadata::Metadata;
use super::{exif, jpeg, png, tiff, webp};

pub(super) fn orientation(format: Format, bytes: &[u8]) -> Orientation {
    let metadata = match format {
        Format::Jpeg => jpeg::metadata(bytes),
        Format::Png => png::metadata(bytes),
        Format::WebP => webp::metadata(bytes),
        Format::Tiff => tiff::metadata(bytes),
        // The container of HEIC and AVIF says it, and EXIF does not count.
        Format::Gif | Format::Bmp | Format::Heic | Format::Avif => Metadata::default(),
    };
    let directory = metadata.exif.map_or(Ok(None), |directory| exif::orientation(&directory));
    let number = match directory {
        Ok(None) => metadata.xmp.and_then(|packet| in_xmp(&packet)),
        Ok(number) => number,
        Err(exif::Unreadable) => None,
    };
    number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The first digit in a packet that stands where an attribute or an element has the orientation.
fn in_xmp(packet: &[u8]) -> Option<u8> {
    let mut rest = packet;
    loop {
        let at = memchr::memmem::find(rest, NAME)?;
        rest = &rest[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"));
        if let Some([digit @ b'0'..=b'9', ..]) = value {
            return Some(digit - b'0');
        }
    }
}

const NAME: &[u8] = b"tiff:Orientation";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_digit_in_a_packet_counts() {
        for (packet, number) in [
            (r#"<rdf:Description tiff:Orientation="6"/>"#, Some(6)),
            ("<tiff:Orientation>8</tiff:Orientation>", Some(8)),
            (r#"tiff:Orientation="12""#, Some(1)),
            (r#"tiff:Orientation="x" tiff:Orientation="3" tiff:Orientation="4""#, Some(3)),
            ("tiff:Orientation='6' tiff:Orientation = \"6\"", None),
            (r#"tiff:Orientation=""#, None),
            ("", None),
        ] {
            assert_eq!(in_xmp(packet.as_bytes()), number, "{packet}");
        }
    }
}
