//! The size of an image, read without a decoder.
//!
//! A file of a few bytes can claim billions of pixels. Its claim is read here, from the fixed places that each format's
//! specification gives, and refused before anything is allocated for it.

use super::format::Format;
use super::{bmp, gif, heif, jpeg, memory, png, tiff, webp};
use crate::error::Error;

/// The most pixels a side, for any number of pixels: the largest side of a JPEG.
const MAX_SIDE: u32 = 65_535;

/// Refuses an image whose header is broken, or claims no pixels, more than `max_pixels` or more than 65,535 a side,
/// or whose decoding takes too much memory.
pub(super) fn check(format: Format, bytes: &[u8], max_pixels: u64) -> Result<(), Error> {
    memory::admit(needed_memory(format, bytes, max_pixels)?)
}

/// The memory that decoding takes, in bytes, of an image whose size is allowed.
pub(super) fn needed_memory(format: Format, bytes: &[u8], max_pixels: u64) -> Result<u64, Error> {
    let admit = |width, height| check_size(width, height, max_pixels);
    match format {
        Format::Jpeg => jpeg::check(bytes, admit),
        Format::Png => png::check(bytes, admit),
        Format::WebP => webp::check(bytes, admit),
        Format::Gif => gif::check(bytes, admit),
        Format::Bmp => bmp::check(bytes, admit),
        Format::Tiff => tiff::check(bytes, admit),
        Format::Heic | Format::Avif => heif::check(format, bytes, admit),
    }
}

fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::NoPixels { width, height });
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Error::SideTooLong { width, height, limit: MAX_SIDE });
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > max_pixels {
        return Err(Error::TooManyPixels { width, height, pixels, limit: max_pixels });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        bytes.extend([8, 2]);
        bytes
    }

    fn bmp(width: i32, height: i32) -> Vec<u8> {
        let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bytes.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        bytes
    }

    #[test]
    fn absurd_sizes_are_refused_before_a_decoder_runs() {
        let check = |format, bytes: &[u8]| check(format, bytes, 50_000_000);
        assert!(matches!(check(Format::Png, &png(64_250, 64_250)), Err(Error::TooManyPixels { .. })));
        assert!(matches!(check(Format::Png, &png(100_000, 1)), Err(Error::SideTooLong { .. })));
        assert!(matches!(check(Format::Png, &png(0, 1)), Err(Error::NoPixels { .. })));
        assert!(matches!(check(Format::Gif, b"GIF89a\0\0\x01\0"), Err(Error::NoPixels { .. })));
        assert!(matches!(check(Format::Bmp, &bmp(i32::MIN, i32::MIN)), Err(Error::SideTooLong { .. })));
        assert!(matches!(check(Format::Png, &png(1, 1)[..20]), Err(Error::BrokenImage { .. })));
        assert!(check(Format::Png, &png(10_000, 5_000)).is_ok());
        assert!(matches!(check(Format::Png, &png(10_000, 5_001)), Err(Error::TooManyPixels { .. })));
    }
}
