//! How much memory the decoding of an image takes, reckoned from its header.
//!
//! The decoders have limits of their own, but none that counts everything: image's leave out the coefficients of a
//! progressive JPEG, and do not exist for WebP. The figures are measured: the memory that the decoders allocate for
//! a pixel at their peak, the decoded pixels and their conversion to RGB included; the tests hold them against an
//! allocator that counts.

use crate::error::Error;

/// The most memory that the decoding of one image may take, in bytes.
pub(super) const MAX_DECODER_MEMORY: u64 = 512 << 20;

/// The most memory for the metadata of a PNG, in bytes: the default of the crate png.
pub(super) const MAX_PNG_METADATA: u64 = 64 << 20;

/// Refuses an image whose decoding takes more than [`MAX_DECODER_MEMORY`].
pub(super) fn admit(needed: u64) -> Result<(), Error> {
    if needed > MAX_DECODER_MEMORY {
        return Err(Error::DecoderMemory { limit: MAX_DECODER_MEMORY });
    }
    Ok(())
}

/// A PNG of `depth` bits a sample, by its colour type: samples come out as one or two bytes, and transparency in a chunk of
/// its own adds a channel.
pub(super) fn png(pixels: u64, depth: u8, colour_type: u8) -> u64 {
    let channels = match colour_type {
        0 | 4 => 2,
        _ => 4,
    };
    let bytes = if depth == 16 { 2 } else { 1 };
    pixels * (channels * bytes + RGB) + MAX_PNG_METADATA
}

/// A GIF, and the pixels of its first frame: an index into the palette for each.
pub(super) fn gif(pixels: u64, frame_pixels: u64) -> u64 {
    pixels * RGB + frame_pixels
}

pub(super) fn bmp(pixels: u64) -> u64 {
    pixels * (RGBA + RGB)
}

/// A JPEG that has all components in one scan.
pub(super) fn jpeg(pixels: u64) -> u64 {
    pixels * (1 + RGB)
}

/// A progressive JPEG whose frame has `blocks` blocks of 8 × 8 coefficients, which are kept until the last scan.
pub(super) fn progressive_jpeg(pixels: u64, blocks: u64) -> u64 {
    jpeg(pixels) + blocks * 64 * 2
}

/// A sequential JPEG in several scans, which is written again: twice a file that usually has `length` bytes and may
/// have twice as many, and `row` bytes for the blocks that are read at once.
pub(super) fn jpeg_in_scans(pixels: u64, length: u64, row: u64) -> u64 {
    jpeg(pixels) + 4 * length + row
}

/// A TIFF with so many bytes a pixel, which are copied once, and then become RGB or, where they were multiplied by their
/// alpha, RGBA.
pub(super) fn tiff(pixels: u64, bytes: u64) -> u64 {
    pixels * (bytes + bytes.max(RGBA))
}

/// The picture of a HEIF, which may be cut, without its tiles.
pub(super) fn heif(pixels: u64, cut: bool) -> u64 {
    pixels * RGB * if cut { 2 } else { 1 }
}

/// A frame of HEVC: samples of two bytes, once more where its blocks reach beyond it, and the notes on its blocks,
/// of which a frame may have one more a side.
pub(super) fn hevc(pixels: u64, (width, height): (u32, u32), chroma: u8) -> u64 {
    let blocks = pixels + 64 * (u64::from(width) + u64::from(height)) + 64 * 64;
    blocks
        * match chroma {
            0 | 1 => 11,
            2 => 13,
            _ => 18,
        }
}

/// A frame of AV1, with samples of two bytes in three planes, once without film grain and once with it.
pub(super) fn av1(pixels: u64) -> u64 {
    pixels * 16
}

/// The kind of a WebP, by its first chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebP {
    Lossy,
    Lossless,
    /// May have an alpha channel beside lossy colours, which is decoded on its own.
    Extended,
    /// A frame, and the canvas that it is drawn on.
    Animated,
}

pub(super) fn webp(pixels: u64, kind: WebP) -> u64 {
    pixels
        * match kind {
            WebP::Lossy => 5,
            WebP::Lossless => 8,
            WebP::Extended => 11,
            WebP::Animated => 13,
        }
}

const RGB: u64 = 3;
const RGBA: u64 = 4;
