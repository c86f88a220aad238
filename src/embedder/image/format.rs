//! What an image says it is, in its first bytes.
//!
//! A format that is known and refused gets its name in the error, so that a user learns what to convert. File
//! signatures: the formats' own specifications, as gathered in the IANA media type registrations and the WHATWG MIME
//! Sniffing standard.

use crate::error::Error;

/// The formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
        }
    }
}

/// Finds the format of an image by its first bytes.
pub(super) fn recognise(bytes: &[u8]) -> Result<Format, Error> {
    if bytes.is_empty() {
        return Err(Error::EmptyImage);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Ok(Format::WebP);
    }
    if let Some((_, format)) = DECODED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Ok(*format);
    }
    let refused = REFUSED.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name);
    match refused.or_else(|| iso_media(bytes)).or_else(|| svg(bytes)) {
        Some(format) => Err(Error::UnsupportedFormat { format }),
        None => Err(Error::UnknownFormat),
    }
}

const DECODED: [(&[u8], Format); 5] = [
    (b"\xff\xd8\xff", Format::Jpeg),
    (b"\x89PNG\r\n\x1a\n", Format::Png),
    (b"GIF87a", Format::Gif),
    (b"GIF89a", Format::Gif),
    (b"BM", Format::Bmp),
];

const REFUSED: [(&[u8], &str); 12] = [
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"%PDF-", "PDF"),
    (b"8BPS", "PSD"),
    (b"\0\0\x01\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"v/1\x01", "OpenEXR"),
];

/// HEIC and AVIF are boxes of the ISO base media file format, of which the first names its brand and those that it is
/// compatible with. The brand of HEIF itself, `mif1`, leaves open which of the two it is.
fn iso_media(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let compatible = bytes.get(16..length.min(bytes.len())).unwrap_or_default();
    let is_avif = || compatible.chunks_exact(4).any(|brand| brand == b"avif" || brand == b"avis");
    match bytes.get(8..12)? {
        b"avif" | b"avis" => Some("AVIF"),
        b"mif1" | b"msf1" if is_avif() => Some("AVIF"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => Some("HEIC"),
        _ => Some("video"),
    }
}

/// The first KiB of an SVG has its root element, after an XML declaration and comments at most.
fn svg(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(1024)];
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    (text.starts_with(b"<") && text.windows(4).any(|window| window == b"<svg")).then_some("SVG")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoded_formats_are_recognised() {
        for (bytes, format) in [
            (&b"\xff\xd8\xff\xe0"[..], Format::Jpeg),
            (b"\x89PNG\r\n\x1a\n\0", Format::Png),
            (b"GIF89a", Format::Gif),
            (b"BM\0\0", Format::Bmp),
            (b"RIFF\0\0\0\0WEBPVP8 ", Format::WebP),
        ] {
            assert_eq!(recognise(bytes).unwrap(), format);
        }
    }

    #[test]
    fn refused_formats_are_named() {
        for (bytes, name) in [
            (&b"II*\0\x08\0\0\0"[..], "TIFF"),
            (b"MM\0*\0\0\0\x08", "TIFF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
            (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG"),
            (b"\xef\xbb\xbf <?xml version=\"1.0\"?>\n<!-- drawn --><svg/>", "SVG"),
            (b"%PDF-1.7", "PDF"),
            (b"\xff\x0a\x00", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
            (b"v/1\x01\x02", "OpenEXR"),
            (b"II+\0\x08\0\0\0", "TIFF"),
            (b"8BPS\0\x01", "PSD"),
            (b"\0\0\x01\0\x01\0", "ICO"),
        ] {
            match recognise(bytes) {
                Err(Error::UnsupportedFormat { format }) => assert_eq!(format, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn anything_else_is_no_image() {
        assert!(matches!(recognise(b""), Err(Error::EmptyImage)));
        for bytes in [&b"hello"[..], b"<html></html>", b"\0", b"RIFF\0\0\0\0WAVE", b"\xff\xd8"] {
            assert!(matches!(recognise(bytes), Err(Error::UnknownFormat)), "{bytes:?}");
        }
    }
}
