//! Bytes become RGB pixels.
//!
//! Colours come to 8-bit RGB and an alpha channel is dropped, as `convert("RGB")` of Pillow does it. The orientation
//! is applied after the resize, when there are far fewer pixels to turn.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageResult, RgbImage};

use super::decoder::{limits, refusal};
use super::format::Format;
use super::memory::MAX_DECODER_MEMORY;
use super::{bmp, gif, heif, jpeg, jpeg_scaled, orientation, png, tiff};
use crate::error::Error;

/// A decoded image.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) pixels: RgbImage,
    pub(super) orientation: Orientation,
    /// Width and height of the whole, of which the pixels are a `scale`th, rounded up.
    pub(super) size: (u32, u32),
    pub(super) scale: u32,
}

impl Decoded {
    pub(super) fn whole(pixels: RgbImage, orientation: Orientation) -> Decoded {
        Decoded { size: pixels.dimensions(), pixels, orientation, scale: 1 }
    }
}

/// Decodes the first frame of an image whose header was checked. A JPEG may be decoded at a fraction of its size where its
/// shorter side is resized to `side` pixels.
pub(super) fn decode(format: Format, bytes: &[u8], side: Option<u32>) -> Result<Decoded, Error> {
    let orientation = orientation::orientation(format, bytes);
    let broken = |error| refusal(format.name(), error);
    let pixels = match format {
        Format::Jpeg => return decode_jpeg(&jpeg::whole(bytes)?, orientation, side),
        Format::Png => png::decode(bytes)?,
        Format::WebP => WebPDecoder::new(Cursor::new(bytes)).and_then(read).map_err(broken)?,
        Format::Gif => gif::decode(bytes)?,
        Format::Bmp => {
            let bytes = bmp::whole(bytes)?;
            BmpDecoder::new(Cursor::new(&*bytes)).and_then(read).map_err(broken)?
        }
        Format::Tiff => tiff::decode(bytes)?,
        Format::Heic | Format::Avif => {
            let (pixels, orientation) = heif::decode(format, bytes)?;
            return Ok(Decoded::whole(pixels, orientation));
        }
    };
    Ok(Decoded::whole(pixels, orientation))
}

fn decode_jpeg(bytes: &[u8], orientation: Orientation, side: Option<u32>) -> Result<Decoded, Error> {
    let broken = |error| refusal(Format::Jpeg.name(), error);
    let decoder = JpegDecoder::new(Cursor::new(bytes)).map_err(broken)?;
    let size = decoder.dimensions();
    let scale = side.map_or(1, |side| jpeg_scaled::scale(size, side));
    match jpeg_scaled::decode(bytes, scale) {
        Some(pixels) => Ok(Decoded { pixels, orientation, size, scale }),
        None => Ok(Decoded::whole(read(decoder).map_err(broken)?, orientation)),
    }
}

fn read(mut decoder: impl ImageDecoder) -> ImageResult<RgbImage> {
    let mut limits = limits(MAX_DECODER_MEMORY);
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    Ok(DynamicImage::from_decoder(decoder)?.into_rgb8())
}
