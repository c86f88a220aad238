//! The metadata of a PNG, as Pillow gathers it: from the chunks before the picture and behind it.
//!
//! Source: Portable Network Graphics (PNG) Specification (Third Edition), and the texts that ImageMagick writes.

use std::borrow::Cow;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_COMPUTE_ADLER32, TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::super::metadata::Metadata;
use super::chunk;

pub(in super::super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let mut texts = Texts::default();
    let (mut animated, mut pictures) = (false, false);
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((name, data, after)) = chunk(rest) {
        rest = after;
        match name {
            b"IEND" => break,
            b"acTL" => animated = true,
            b"IDAT" => pictures = true,
            // The next frame of an animation, which is not read.
            b"fcTL" if animated && pictures => break,
            b"eXIf" => texts.exif = Some(Cow::Borrowed(data)),
            b"tEXt" => texts.add_plain(data),
            b"zTXt" => texts.add_packed(data),
            b"iTXt" => texts.add_international(data),
            _ => {}
        }
    }
    texts.metadata()
}

/// The last text of each key that may say how the picture is turned.
#[derive(Default)]
struct Texts<'a> {
    exif: Option<Cow<'a, [u8]>>,
    profile: Option<Cow<'a, [u8]>>,
    xmp: Option<Cow<'a, [u8]>>,
    /// The same in any encoding.
    xmp_bytes: Option<Cow<'a, [u8]>>,
    /// The bytes that were unpacked.
    unpacked: usize,
}

const EXIF: &[u8] = b"exif";
const PROFILE: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";
/// Under this key Pillow has the packet of a chunk iTXt, and fails where it is a text of its own.
const XMP_BYTES: &[u8] = b"xmp";

/// Bytes that cannot be read as a directory of EXIF.
const NO_DIRECTORY: &[u8] = b"none";

impl<'a> Texts<'a> {
    fn add_plain(&mut self, data: &'a [u8]) {
        let (key, text) = split(data).unwrap_or((data, &[]));
        match key {
            EXIF => self.exif = Some(Cow::Borrowed(text)),
            _ => self.add(key, Cow::Borrowed(text)),
        }
    }

    /// Adds a text that Pillow has as characters, which no directory consists of.
    fn add(&mut self, key: &[u8], text: Cow<'a, [u8]>) {
        match key {
            EXIF if text.is_empty() => self.exif = Some(text),
            EXIF => self.exif = Some(Cow::Borrowed(NO_DIRECTORY)),
            PROFILE => self.profile = Some(text),
            XMP => self.xmp = Some(text),
            XMP_BYTES => self.xmp_bytes = None,
            _ => {}
        }
    }

    fn add_packed(&mut self, data: &'a [u8]) {
        let (key, text) = split(data).unwrap_or((data, &[]));
        // A broken text is empty.
        if let Some(text) = self.unpack(key, text.get(1..).unwrap_or_default()) {
            self.add(key, Cow::Owned(text.unwrap_or_default()));
        }
    }

    fn add_international(&mut self, data: &'a [u8]) {
        let Some(text) = International::read(data) else { return };
        let content = match text.packed {
            false => Cow::Borrowed(text.content),
            true => match self.unpack(text.key, text.content) {
                Some(Some(content)) => Cow::Owned(content),
                _ => return,
            },
        };
        if text.key == XMP {
            self.xmp_bytes = Some(content.clone());
        }
        if [text.language, text.translated_key, &*content].iter().all(|part| str::from_utf8(part).is_ok()) {
            self.add(text.key, content);
        }
    }

    /// Unpacks a text. None where its key does not matter or it is too long; nothing in it where it is broken.
    fn unpack(&mut self, key: &[u8], text: &[u8]) -> Option<Option<Vec<u8>>> {
        if ![EXIF, PROFILE, XMP, XMP_BYTES].contains(&key) || self.unpacked > MAX_TEXTS {
            return None;
        }
        let text = inflate(text).ok()?;
        self.unpacked += text.as_ref().map_or(MAX_TEXT, Vec::len);
        Some(text)
    }

    fn metadata(self) -> Metadata<'a> {
        let profile = || Some(unhex(&self.profile?).map_or(Cow::Borrowed(NO_DIRECTORY), Cow::Owned));
        Metadata {
            exif: self.exif.or_else(profile),
            xmp: self.xmp.filter(|packet| !packet.is_empty()).or(self.xmp_bytes),
        }
    }
}

/// A text of a chunk iTXt.
struct International<'a> {
    key: &'a [u8],
    packed: bool,
    language: &'a [u8],
    translated_key: &'a [u8],
    content: &'a [u8],
}

impl International<'_> {
    fn read(data: &[u8]) -> Option<International<'_>> {
        let (key, rest) = split(data)?;
        let ([packed, method], rest) = rest.split_first_chunk()?;
        let (language, rest) = split(rest)?;
        let (translated_key, content) = split(rest)?;
        let packed = *packed != 0;
        (!packed || *method == 0).then_some(International { key, packed, language, translated_key, content })
    }
}

/// The bytes before the first zero, and those behind it.
fn split(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(0, data)?;
    Some((&data[..at], &data[at + 1..]))
}

/// The most bytes that a text may have when it is unpacked, and all together.
const MAX_TEXT: usize = 1 << 20;
const MAX_TEXTS: usize = 64 << 20;

/// Unpacks zlib's data as far as it is there; nothing where it is broken.
fn inflate(data: &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
    // No byte becomes more than 1,032.
    let mut text = vec![0; MAX_TEXT.min(1032 * data.len() + 1)];
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER
        | TINFL_FLAG_COMPUTE_ADLER32
        | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
        | TINFL_FLAG_HAS_MORE_INPUT;
    let (status, _, length) = decompress(&mut DecompressorOxide::new(), data, &mut text, 0, flags);
    text.truncate(length);
    match status {
        TINFLStatus::Done | TINFLStatus::NeedsMoreInput => Ok(Some(text)),
        TINFLStatus::HasMoreOutput => Err(TooLong),
        _ => Ok(None),
    }
}

struct TooLong;

/// The bytes of a profile: behind three lines pairs of hexadecimal digits, between which there may be spaces.
fn unhex(profile: &[u8]) -> Option<Vec<u8>> {
    let Some(third) = memchr::memchr_iter(b'\n', profile).nth(2) else { return Some(Vec::new()) };
    let digits = &profile[third + 1..];
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    let mut high = None;
    for byte in digits.iter().filter(|byte| **byte != b'\n') {
        match (char::from(*byte).to_digit(16), high.take()) {
            (Some(digit), None) => high = Some(digit),
            (Some(digit), Some(high)) => bytes.push((high << 4 | digit) as u8),
            (None, None) if byte.is_ascii_whitespace() || *byte == b'\x0b' => {}
            _ => return None,
        }
    }
    high.is_none().then_some(bytes)
}
