//! The format that an image names in its first bytes.
//!
//! A format that is known and refused gets its name in the error, so that a user knows which format to convert.
//! File signatures: the formats' own specifications, as gathered in the IANA media type registrations and the
//! WHATWG MIME Sniffing standard.

use super::exif::Directory;
use super::text;
use crate::error::Error;

/// The formats that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
    /// Coded as HEVC, or in a way that its brand leaves open.
    Heic,
    Avif,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
            Format::Bmp => "BMP",
            Format::Tiff => "TIFF",
            Format::Heic => "HEIC",
            Format::Avif => "AVIF",
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
    if let Some(format) = refused.or_else(|| raw_photo(bytes)).or_else(|| svg(bytes)) {
        return Err(Error::UnsupportedFormat { format });
    }
    if bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*") {
        return Ok(Format::Tiff);
    }
    if let Some(media) = iso_media(bytes) {
        return media.map_err(|format| Error::UnsupportedFormat { format });
    }
    match text::recognise(bytes) {
        Some(found) => Err(Error::TextForImage { found: found.name(), hint: found.hint() }),
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

const REFUSED: [(&[u8], &str); 15] = [
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"II*\0\x10\0\0\0CR", "CR2 (Canon's raw photo)"),
    (b"IIRO", "ORF (Olympus's raw photo)"),
    (b"IIRS", "ORF (Olympus's raw photo)"),
    (b"IIU\0", "RW2 (Panasonic's raw photo)"),
    (b"FUJIFILMCCD-RAW", "RAF (Fujifilm's raw photo)"),
    (b"%PDF-", "PDF"),
    (b"8BPS", "PSD"),
    (b"\0\0\x01\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"v/1\x01", "OpenEXR"),
];

/// A raw photo in the form of a TIFF: with a version of DNG, or with the name of a maker and further directories,
/// which have the data of the sensor. The picture in the first one is a small preview.
fn raw_photo(bytes: &[u8]) -> Option<&'static str> {
    if !bytes.starts_with(b"II*\0") && !bytes.starts_with(b"MM\0*") {
        return None;
    }
    let directory = Directory::of(bytes)?;
    if directory.has(DNG_VERSION) {
        return Some("DNG (a raw photo)");
    }
    let maker = directory.text(MAKER).filter(|_| directory.has(DIRECTORIES))?;
    RAW_PHOTOS.iter().find(|(name, _)| maker.starts_with(name)).map(|(_, format)| *format)
}

const MAKER: u16 = 271;
const DIRECTORIES: u16 = 330;
const DNG_VERSION: u16 = 50_706;

const RAW_PHOTOS: [(&[u8], &str); 3] = [
    (b"NIKON", "NEF (Nikon's raw photo)"),
    (b"SONY", "ARW (Sony's raw photo)"),
    (b"PENTAX", "PEF (Pentax's raw photo)"),
];

/// HEIC and AVIF are boxes of the ISO base media file format. The first box names the file's brand, and the brands
/// that it is compatible with. The brands of HEIF itself leave open how the picture is coded.
fn iso_media(bytes: &[u8]) -> Option<Result<Format, &'static str>> {
    if bytes.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    let brand: &[u8; 4] = bytes.get(8..)?.first_chunk()?;
    let compatible = bytes.get(16..length.min(bytes.len())).unwrap_or_default().as_chunks::<4>().0;
    let of = |brand: &[u8; 4]| {
        BRANDS.iter().find(|(brands, _)| brands.contains(&brand)).map(|(_, format)| *format)
    };
    if HEIF.contains(&brand) {
        return Some(compatible.iter().find_map(of).unwrap_or(Ok(Format::Heic)));
    }
    of(brand).or(Some(Err("video")))
}

const HEIF: [&[u8; 4]; 5] = [b"mif1", b"mif2", b"msf1", b"miaf", b"heif"];

/// Brands, and their format or its name where it is not supported.
type Brands = (&'static [&'static [u8; 4]], Result<Format, &'static str>);

const BRANDS: [Brands; 6] = [
    (&[b"avif", b"avis"], Ok(Format::Avif)),
    (&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"], Ok(Format::Heic)),
    (&[b"avci", b"avcs"], Err("HEIF (with H.264)")),
    (&[b"jpeg", b"jpgs"], Err("HEIF (with JPEG)")),
    (&[b"j2ki", b"j2is"], Err("HEIF (with JPEG 2000)")),
    (&[b"crx "], Err("CR3 (Canon's raw photo)")),
];

/// The first KiB of an SVG has its root element, after an XML declaration and comments at most.
fn svg(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(1024)];
    let mut text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    loop {
        let end: &[u8] = match text {
            [b'<', b'?', ..] => b"?>",
            [b'<', b'!', b'-', b'-', ..] => b"-->",
            [b'<', b'!', b'D', ..] => b">",
            _ => break,
        };
        text = text[memchr::memmem::find(text, end)? + end.len()..].trim_ascii_start();
    }
    let name = text.strip_prefix(b"<")?;
    let name = name.strip_prefix(b"svg:").unwrap_or(name);
    let after = name.strip_prefix(b"svg")?;
    after.first().is_none_or(|byte| !byte.is_ascii_alphanumeric()).then_some("SVG")
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
            (b"II*\0\x08\0\0\0", Format::Tiff),
            (b"MM\0*\0\0\0\x08", Format::Tiff),
            (b"\0\0\0\x18ftypheic\0\0\0\0", Format::Heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0", Format::Heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Format::Heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", Format::Avif),
            (b"\0\0\0\x18ftypavif\0\0\0\0", Format::Avif),
            (b"\0\0\0\x18ftypmif2\0\0\0\0miafheic", Format::Heic),
            (b"\0\0\0\x18ftypheif\0\0\0\0heif", Format::Heic),
            (b"\0\0\0\x18ftypmiaf\0\0\0\0miafavif", Format::Avif),
        ] {
            assert_eq!(recognise(bytes).unwrap(), format);
        }
    }

    #[test]
    fn refused_formats_are_named() {
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypavci\0\0\0\0mif1avci"[..], "HEIF (with H.264)"),
            (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "CR3 (Canon's raw photo)"),
            (b"II*\0\x10\0\0\0CR\x02\0", "CR2 (Canon's raw photo)"),
            (b"II*\0\x08\0\0\0\x01\0\x12\xc6\x01\0\x04\0\0\0\x01\x04\0\0", "DNG (a raw photo)"),
            (NEF, "NEF (Nikon's raw photo)"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG"),
            (b"\xef\xbb\xbf <?xml version=\"1.0\"?>\n<!-- drawn --><svg/>", "SVG"),
            (b"%PDF-1.7", "PDF"),
            (b"\xff\x0a\x00", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
            (b"v/1\x01\x02", "OpenEXR"),
            (b"<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\">\n<svg:svg>", "SVG"),
            (b"II+\0\x08\0\0\0", "BigTIFF"),
            (b"8BPS\0\x01", "PSD"),
            (b"\0\0\x01\0\x01\0", "ICO"),
        ] {
            match recognise(bytes) {
                Err(Error::UnsupportedFormat { format }) => assert_eq!(format, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    /// A directory of TIFF with a maker, and with other directories.
    const NEF: &[u8] = b"MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x06\0\0\0\x26\
        \x01\x4a\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\0NIKON\0";

    #[test]
    fn a_page_with_a_drawing_is_a_page() {
        let found = recognise(b"<!DOCTYPE html><html><body><svg></svg></body></html>");
        assert!(matches!(found, Err(Error::TextForImage { found: "an HTML page", .. })), "{found:?}");
    }

    #[test]
    fn anything_else_is_no_image() {
        assert!(matches!(recognise(b""), Err(Error::EmptyImage)));
        for bytes in [&b"\0"[..], b"RIFF\0\0\0\0WAVE", b"\xff\xd8"] {
            assert!(matches!(recognise(bytes), Err(Error::UnknownFormat)), "{bytes:?}");
        }
    }
}
