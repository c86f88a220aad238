//! The pixels of a PNG, where Pillow shows them.
//!
//! Pillow does not check the checksums of the chunks that hold the picture, because the packed picture ends with a
//! checksum of its own, and it accepts a file without the last chunk. The decoder demands both, and does not check
//! the checksum within. So this code checks the checksum within, and those of the header and of the palette,
//! without which the picture would be another one.

mod metadata;

use std::borrow::Cow;
use std::io::Cursor;

use image::RgbImage;
use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

pub(super) use self::metadata::metadata;
use super::memory::{self, MAX_DECODER_MEMORY, MAX_PNG_METADATA};
use crate::error::Error;

/// Refuses a PNG of a size that `admit` refuses, or whose header is incomplete. Returns the memory that its decoding takes,
/// in bytes.
pub(super) fn check(bytes: &[u8], admit: impl Fn(u32, u32) -> Result<(), Error>) -> Result<u64, Error> {
    let header = bytes.get(8..).and_then(chunk_head).filter(|(name, ..)| *name == b"IHDR");
    let fields = header.and_then(|(.., rest)| rest.first_chunk()).ok_or_else(incomplete)?;
    let [w0, w1, w2, w3, h0, h1, h2, h3, depth, colour_type] = *fields;
    let [width, height] = [[w0, w1, w2, w3], [h0, h1, h2, h3]].map(u32::from_be_bytes);
    admit(width, height)?;
    let copy = if end(bytes).is_some() { bytes.len() as u64 + 16 } else { 0 };
    Ok(memory::png(u64::from(width) * u64::from(height), depth, colour_type) + copy)
}

/// Decodes a PNG that was checked, of an animation the first picture.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, Error> {
    check_sums(bytes)?;
    let mut options = DecodeOptions::default();
    options.set_ignore_crc(true);
    options.set_ignore_adler32(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(closed(bytes)), options);
    decoder.set_limits(Limits { bytes: MAX_PNG_METADATA as usize });
    // Palettes become colours, and bits bytes.
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(refusal)?;
    let size = reader.output_buffer_size().ok_or(Error::DecoderMemory { limit: MAX_DECODER_MEMORY })?;
    let mut samples = vec![0; size];
    let frame = reader.next_frame(&mut samples).map_err(refusal)?;
    let pixels = match (frame.color_type, frame.bit_depth) {
        (ColorType::Rgb, BitDepth::Eight) => samples,
        (colours, depth) => {
            let grey = matches!(colours, ColorType::Grayscale | ColorType::GrayscaleAlpha);
            to_rgb(&samples, colours.samples(), grey, depth == BitDepth::Sixteen)
        }
    };
    RgbImage::from_raw(frame.width, frame.height, pixels).ok_or_else(|| broken("it has too few pixels"))
}

/// Leaves out an alpha channel and rounds samples of 16 bits to 8.
fn to_rgb(samples: &[u8], channels: usize, grey: bool, wide: bool) -> Vec<u8> {
    let width = if wide { 2 } else { 1 };
    let places = if grey { [0; 3] } else { [0, width, 2 * width] };
    let mut pixels = Vec::with_capacity(samples.len() / (channels * width) * 3);
    for pixel in samples.chunks_exact(channels * width) {
        pixels.extend(places.map(|at| {
            if wide {
                ((u32::from(u16::from_be_bytes([pixel[at], pixel[at + 1]])) + 128) / 257) as u8
            } else {
                pixel[at]
            }
        }));
    }
    pixels
}

/// Refuses a wrong checksum of a chunk before the picture that decides how it is read.
fn check_sums(bytes: &[u8]) -> Result<(), Error> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((name, data, after)) = chunk(rest).filter(|(name, ..)| *name != b"IDAT") {
        let part = match name {
            b"IHDR" => "header",
            b"PLTE" => "palette",
            _ => "",
        };
        let sum = rest.get(8 + data.len()..).and_then(|rest| rest.first_chunk()).copied();
        if !part.is_empty() && sum.map(u32::from_be_bytes) != Some(crc32fast::hash(&rest[4..8 + data.len()]))
        {
            return Err(broken(&format!("its {part} has a wrong checksum")));
        }
        rest = after;
    }
    Ok(())
}

/// The file with its last chunk.
fn closed(bytes: &[u8]) -> Cow<'_, [u8]> {
    const LAST: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
    match end(bytes) {
        None => Cow::Borrowed(bytes),
        Some(End { at, sum: true }) => Cow::Owned([&bytes[..at], LAST].concat()),
        Some(End { at, sum: false }) => Cow::Owned([&bytes[..at], &[0; 4], LAST].concat()),
    }
}

/// Where a file ends that lacks its last chunk.
struct End {
    at: usize,
    /// Whether the last chunk that there is has a checksum.
    sum: bool,
}

fn end(bytes: &[u8]) -> Option<End> {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((_, data, after)) = chunk(rest).filter(|(name, ..)| *name != b"IEND") {
        if rest.len() < 12 + data.len() {
            return Some(End { at: bytes.len() - (rest.len() - 8 - data.len()), sum: false });
        }
        rest = after;
    }
    // Within a chunk nothing is added: the missing bytes are a part of the picture.
    (rest.len() < 8).then_some(End { at: bytes.len() - rest.len(), sum: true })
}

/// The name and data of the first chunk, and the rest.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (name, length, rest) = chunk_head(bytes)?;
    let (data, rest) = rest.split_at_checked(length)?;
    Some((name, data, rest.get(4..).unwrap_or_default()))
}

/// The name of the first chunk, the length of its data, and the rest.
fn chunk_head(bytes: &[u8]) -> Option<(&[u8; 4], usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (name, rest) = rest.split_first_chunk()?;
    Some((name, u32::from_be_bytes(*length) as usize, rest))
}

fn incomplete() -> Error {
    broken("its header is incomplete")
}

fn refusal(error: DecodingError) -> Error {
    match error {
        DecodingError::LimitsExceeded => Error::DecoderMemory { limit: MAX_DECODER_MEMORY },
        DecodingError::IoError(_) => broken("it ends early"),
        DecodingError::Format(error) => broken(&plain(&error.to_string())),
        DecodingError::Parameter(error) => broken(&error.to_string()),
    }
}

/// The decoder's message without the names of its own types.
fn plain(message: &str) -> String {
    if message.contains("deflate") {
        return "its picture cannot be unpacked".to_owned();
    }
    // A chunk is written as `ChunkType { type: IDAT, critical: true, … }`.
    let named = message.split_once("ChunkType { type: ").and_then(|(before, rest)| {
        let (name, rest) = rest.split_once(',')?;
        Some(format!("{before}{name}{}", rest.split_once('}')?.1))
    });
    named.unwrap_or_else(|| message.to_owned())
}

fn broken(reason: &str) -> Error {
    Error::BrokenImage { format: "PNG", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two grey pixels, and where the chunk of the picture begins.
    fn png() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[10, 200]).unwrap();
        let at = memchr::memmem::find(&bytes, b"IDAT").unwrap() - 4;
        (bytes, at)
    }

    fn pixels(bytes: &[u8]) -> Option<Vec<u8>> {
        check(bytes, |_, _| Ok(())).ok()?;
        decode(bytes).ok().map(RgbImage::into_raw)
    }

    #[test]
    fn a_picture_is_whole_as_soon_as_its_data_is() {
        let (whole, _) = png();
        let picture = Some(vec![10, 10, 10, 200, 200, 200]);
        // The last chunk has 12 bytes, and the checksum before it 4.
        for length in 8..=whole.len() {
            let expected = if length >= whole.len() - 16 { picture.clone() } else { None };
            assert_eq!(pixels(&whole[..length]), expected, "{length} of {}", whole.len());
        }
    }

    #[test]
    fn the_checksum_within_the_picture_counts() {
        let (whole, at) = png();
        let changed = |place: usize| {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            pixels(&bytes).is_some()
        };
        let length = u32::from_be_bytes(*whole[at..].first_chunk().unwrap()) as usize;
        assert!(changed(at + 8 + length), "the checksum of the chunk");
        assert!(!changed(at + 8 + length - 1), "the checksum within");
        assert!(!changed(8 + 8 + 13), "the checksum of the header");
    }

    #[test]
    fn messages_do_not_show_types() {
        let (mut whole, at) = png();
        whole[at + 10] ^= 0xff;
        let error = decode(&whole).unwrap_err();
        assert!(
            matches!(&error, Error::BrokenImage { reason, .. } if reason == "its picture cannot be unpacked")
        );
        let written =
            "Chunk ChunkType { type: PLTE, critical: true, private: false } is invalid after IDAT chunk.";
        assert_eq!(plain(written), "Chunk PLTE is invalid after IDAT chunk.");
    }
}
