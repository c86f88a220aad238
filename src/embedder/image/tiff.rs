//! The first picture of a TIFF.
//!
//! A TIFF may hold nearly anything. This module reads the kinds that cameras, scanners and editors write and Pillow
//! reads: grey of 1, 8 and 16 bits, RGB and CMYK of 8 and 16, with an alpha channel or without, in strips or in
//! tiles, packed without loss. The rest is refused by name, before a decoder sees it. Source: TIFF 6.0.

use std::io::Cursor;

use image::codecs::tiff::TiffDecoder;
use image::{DynamicImage, ImageDecoder, ImageResult, RgbImage};

use super::exif::Directory;
use super::memory::MAX_DECODER_MEMORY;
use super::metadata::Metadata;
use super::{decoder, memory};
use crate::error::Error;

/// Refuses a TIFF of a size that `admit` refuses, with an incomplete header, or of a kind that is not read. Returns the
/// memory that its decoding takes, in bytes.
pub(super) fn check(bytes: &[u8], admit: impl Fn(u32, u32) -> Result<(), Error>) -> Result<u64, Error> {
    let directory = Directory::of(bytes).ok_or_else(incomplete)?;
    let (width, height) = size(&directory)?;
    admit(width, height)?;
    if directory.has_two_of_a_tag() {
        return Err(broken("its directory says a thing twice"));
    }
    let samples = Samples::read(&directory)?;
    check_tiles(&directory)?;
    Ok(memory::tiff(u64::from(width) * u64::from(height), samples.count * samples.bits.div_ceil(8)))
}

/// Decodes a TIFF that was checked.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, Error> {
    let directory = Directory::of(bytes).ok_or_else(incomplete)?;
    let premultiplied = Samples::read(&directory)?.premultiplied;
    let refusal = |error| decoder::refusal("TIFF", error);
    let decoder = TiffDecoder::new(Cursor::new(bytes)).map_err(refusal)?;
    if decoder.dimensions() != size(&directory)? {
        return Err(broken("its directory says two sizes"));
    }
    let picture = read(decoder).map_err(refusal)?;
    if !premultiplied {
        return Ok(picture.into_rgb8());
    }
    let mut pixels = RgbImage::new(picture.width(), picture.height());
    for (from, to) in picture.into_rgba8().pixels().zip(pixels.pixels_mut()) {
        let [colours @ .., alpha] = from.0;
        let opaque =
            |colour: u8| (u16::from(colour) * 255).checked_div(alpha.into()).unwrap_or(0).min(255) as u8;
        to.0 = colours.map(opaque);
    }
    Ok(pixels)
}

fn read(mut decoder: TiffDecoder<Cursor<&[u8]>>) -> ImageResult<DynamicImage> {
    decoder.set_limits(decoder::limits(MAX_DECODER_MEMORY))?;
    DynamicImage::from_decoder(decoder)
}

/// The file itself is a directory as EXIF has it.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let xmp = Directory::of(bytes).and_then(|directory| directory.text(XMP));
    Metadata { exif: Some(bytes.into()), xmp: xmp.map(Into::into) }
}

/// The samples of a pixel.
struct Samples {
    count: u64,
    bits: u64,
    /// Whether the colours were multiplied by their alpha.
    premultiplied: bool,
}

impl Samples {
    fn read(directory: &Directory) -> Result<Samples, Error> {
        let first = |tag, usual| match directory.has(tag) {
            true => {
                directory.numbers(tag, 1).and_then(|values| values.first().copied()).ok_or_else(incomplete)
            }
            false => Ok(usual),
        };
        let all = |tag| directory.numbers(tag, MOST_SAMPLES + 1).unwrap_or_default();
        match first(COMPRESSION, 1)? {
            1 | 4 | 5 | 8 | 32_773 | 32_946 => {}
            2 | 3 => return Err(unsupported("it is packed as a fax of group 3")),
            6 | 7 => return Err(unsupported("it is packed as JPEG")),
            34_712 => return Err(unsupported("it is packed as JPEG 2000")),
            50_000 => return Err(unsupported("it is packed with Zstandard")),
            50_001 => return Err(unsupported("it is packed as WebP")),
            other => {
                return Err(unsupported(&format!("it is packed in a way that is not known, number {other}")));
            }
        }
        let (count, bits) = (first(SAMPLES, 1)?, first(BITS, 1)?);
        let colours = match first(INTERPRETATION, u64::MAX)? {
            0 | 1 => 1,
            2 => 3,
            5 => 4,
            3 => return Err(unsupported("its colours are in a palette")),
            6 => return Err(unsupported("its colours are YCbCr")),
            8..=10 => return Err(unsupported("its colours are L*a*b*")),
            _ => return Err(unsupported("it does not say what its colours mean")),
        };
        if !matches!(bits, 8 | 16) && (bits, colours) != (1, 1) {
            return Err(unsupported(&format!("its samples have {bits} bits")));
        }
        if all(FORMAT).iter().any(|format| *format != 1) {
            return Err(unsupported("its samples are not whole numbers"));
        }
        let extra = all(EXTRA);
        let alpha = matches!(extra.as_slice(), [1 | 2]) && colours == 3;
        if count != colours && !(alpha && count == 4) {
            return Err(unsupported(&format!("it has {count} samples a pixel")));
        }
        Ok(Samples { count, bits, premultiplied: alpha && extra == [1] })
    }
}

fn size(directory: &Directory) -> Result<(u32, u32), Error> {
    let side = |tag| directory.numbers(tag, 1).and_then(|values| u32::try_from(*values.first()?).ok());
    side(WIDTH).zip(side(HEIGHT)).ok_or_else(incomplete)
}

/// Refuses tiles of which one row takes much memory, for any size of the picture.
fn check_tiles(directory: &Directory) -> Result<(), Error> {
    for tag in [TILE_WIDTH, TILE_HEIGHT] {
        let side = directory.numbers(tag, 1).unwrap_or_default();
        if side.first().is_some_and(|side| *side > MAX_TILE) {
            return Err(unsupported(&format!("its tiles have more than {MAX_TILE} pixels a side")));
        }
    }
    Ok(())
}

const MAX_TILE: u64 = 65_535;

/// The most samples of a pixel.
const MOST_SAMPLES: u64 = 4;

const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const INTERPRETATION: u16 = 262;
const SAMPLES: u16 = 277;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const EXTRA: u16 = 338;
const FORMAT: u16 = 339;
const XMP: u16 = 700;

fn incomplete() -> Error {
    broken("its header is incomplete")
}

fn broken(reason: &str) -> Error {
    Error::BrokenImage { format: "TIFF", reason: reason.to_owned() }
}

fn unsupported(reason: &str) -> Error {
    Error::UnsupportedFeature { format: "TIFF", reason: reason.to_owned() }
}
