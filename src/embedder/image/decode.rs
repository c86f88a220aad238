//! Bytes become RGB pixels.
//!
//! Colours come to 8-bit RGB and an alpha channel is dropped, as `convert("RGB")` of Pillow does it. The orientation
//! is applied after the resize, when there are far fewer pixels to turn.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageResult, Limits, RgbImage};

use super::format::Format;
use super::memory::{MAX_DECODER_MEMORY, MAX_PNG_METADATA};
use super::{bmp, gif, jpeg, orientation};
use crate::error::Error;

/// Decodes the first frame of an image whose header was checked.
pub(super) fn decode(format: Format, bytes: &[u8]) -> Result<(RgbImage, Orientation), Error> {
    let source = Cursor::new(bytes);
    let orientation = orientation::orientation(format, bytes);
    let decoded = match format {
        Format::Jpeg => JpegDecoder::new(Cursor::new(jpeg::whole(bytes)?)).and_then(read),
        Format::Png => PngDecoder::with_limits(source, limits(MAX_PNG_METADATA)).and_then(read),
        Format::WebP => WebPDecoder::new(source).and_then(read),
        Format::Gif => return Ok((gif::decode(bytes)?, orientation)),
        Format::Bmp => {
            bmp::check_runs(bytes)?;
            BmpDecoder::new(source).and_then(read)
        }
    };
    decoded.map(|pixels| (pixels, orientation)).map_err(|error| refusal(format.name(), error))
}

fn read(mut decoder: impl ImageDecoder) -> ImageResult<RgbImage> {
    let mut limits = limits(MAX_DECODER_MEMORY);
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    Ok(DynamicImage::from_decoder(decoder)?.into_rgb8())
}

fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(bytes);
    limits
}

fn refusal(format: &'static str, error: ImageError) -> Error {
    match error {
        ImageError::Limits(_) => Error::DecoderMemory { limit: MAX_DECODER_MEMORY },
        ImageError::Unsupported(error) => Error::UnsupportedFeature { format, reason: error.to_string() },
        error => Error::BrokenImage { format, reason: error.to_string() },
    }
}
