//! A BMP before it is decoded.
//!
//! The decoder leaves pixels black that no run length reaches: a picture that ends early, or with fewer rows than
//! its header says, would be embedded as if it were whole. So the pixels are counted. Deltas, which skip pixels,
//! are refused: readers do not agree on the pixels there, and Pillow 11.3 reads their offsets wrong. Source: MS-WMF
//! 3.1.6.

use std::borrow::Cow;

use super::format::Format;
use super::memory;
use crate::error::Error;

/// Refuses a BMP of a size that `admit` refuses, or whose header is incomplete. Returns the memory that its decoding takes,
/// in bytes.
pub(super) fn check(bytes: &[u8], admit: impl Fn(u32, u32) -> Result<(), Error>) -> Result<u64, Error> {
    let (width, height) = size(bytes).ok_or_else(|| broken("its header is incomplete"))?;
    admit(width, height)?;
    let copy = if place_of_pixels(bytes).is_some() { bytes.len() as u64 } else { 0 };
    Ok(memory::bmp(u64::from(width) * u64::from(height)) + copy)
}

/// Refuses a BMP in run lengths in which a row is not filled to its end. Returns the bytes for the
/// decoder: the file, or a copy with the right place of the pixels.
pub(super) fn whole(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut bytes = Cow::Borrowed(bytes);
    if let Some(place) = place_of_pixels(&bytes) {
        bytes.to_mut()[10..14].copy_from_slice(&place.to_le_bytes());
    }
    check_runs(&bytes)?;
    Ok(bytes)
}

/// The place of the pixels in a file that does not name it, or names the place right behind its header, where its
/// palette is. Pillow reads such files.
fn place_of_pixels(bytes: &[u8]) -> Option<u32> {
    let header = u32_le(bytes, 14)?;
    let (place, end) = (u32_le(bytes, 10)?, header.checked_add(14)?);
    let (bits, colours, compression) = match header {
        CORE_HEADER => (u16_le(bytes, 24)?, 0, 0),
        _ => (u16_le(bytes, 28)?, u32_le(bytes, 46)?, u32_le(bytes, 30)?),
    };
    let in_palette = (1..=8).contains(&bits);
    if place != 0 && (place != end || !in_palette) {
        return None;
    }
    if !in_palette {
        // The old header has the masks of colours behind it.
        return end.checked_add(if header == 40 && compression == MASKS { 12 } else { 0 });
    }
    let colours = if colours == 0 { 1 << bits } else { colours };
    // Where the place is wrong, Pillow takes four bytes for a colour even where there are three.
    let colour = if header == CORE_HEADER && place == 0 { 3 } else { 4 };
    end.checked_add(colours.checked_mul(colour)?)
}

/// The compression that is none, and says that there are masks of colours.
const MASKS: u32 = 3;

/// The length of the header of OS/2, which has no field for the colours.
const CORE_HEADER: u32 = 12;

fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    if u32_le(bytes, 14)? == CORE_HEADER {
        return Some((u16_le(bytes, 18)?, u16_le(bytes, 20)?));
    }
    // A negative height says that the rows are stored from the top down.
    let [width, height] = [18, 22].map(|at| u32_le(bytes, at).map(u32::cast_signed));
    Some((width?.unsigned_abs(), height?.unsigned_abs()))
}

fn check_runs(bytes: &[u8]) -> Result<(), Error> {
    let [data, width, height, compression] = [10, 18, 22, 30].map(|at| u32_le(bytes, at));
    let (Some(data), Some(width), Some(height)) = (data, width, height) else { return Ok(()) };
    let values_in_byte = match compression {
        Some(RLE_8) => 1,
        Some(RLE_4) => 2,
        _ => return Ok(()),
    };
    let mut rest = bytes.get(data as usize..).unwrap_or_default();
    let (width, mut rows, mut filled) = (width as usize, height.cast_signed().unsigned_abs(), 0_usize);
    while rows > 0 {
        let [count, value, ref after @ ..] = *rest else { return Err(broken("it ends early")) };
        rest = after;
        match (count, value) {
            (0, END_OF_ROW | END_OF_PICTURE) => {
                if filled < width {
                    return Err(broken("a row has fewer pixels than the picture is wide"));
                }
                filled = 0;
                rows -= 1;
                if value == END_OF_PICTURE && rows > 0 {
                    return Err(broken("it has fewer rows than its header says"));
                }
            }
            (0, SKIP) => {
                let reason = "it has run lengths that skip pixels".to_owned();
                return Err(Error::UnsupportedFeature { format: Format::Bmp.name(), reason });
            }
            (0, values) => {
                // As many values as they are, in pairs of bytes.
                let length = usize::from(values).div_ceil(values_in_byte).next_multiple_of(2);
                rest = rest.get(length..).ok_or_else(|| broken("it ends early"))?;
                filled += usize::from(values);
            }
            (run, _) => filled += usize::from(run),
        }
    }
    Ok(())
}

const RLE_8: u32 = 1;
const RLE_4: u32 = 2;

/// The values where the length of a run is 0.
const END_OF_ROW: u8 = 0;
const END_OF_PICTURE: u8 = 1;
const SKIP: u8 = 2;

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|value| u32::from_le_bytes(*value))
}

fn u16_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|value| u16::from_le_bytes(*value).into())
}

fn broken(reason: &str) -> Error {
    Error::BrokenImage { format: Format::Bmp.name(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pixels wide and two high, with 8 bits for each.
    fn bmp(runs: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 54];
        (bytes[10], bytes[18], bytes[22], bytes[30]) = (54, 3, 2, 1);
        [bytes.as_slice(), runs].concat()
    }

    #[test]
    fn the_size_is_read_from_the_header() {
        let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bytes.extend([640_i32.to_le_bytes(), (-480_i32).to_le_bytes()].concat());
        assert_eq!(size(&bytes), Some((640, 480)));
    }

    #[test]
    fn each_row_has_to_be_filled() {
        for whole in [
            &b"\x03a\0\0\x03b\0\x01"[..],
            b"\x01a\0\x03bcd\0\0\0\x03b\0\0",
            b"\x02a\x01b\0\0\x07b\0\x01 and a tail",
        ] {
            assert!(check_runs(&bmp(whole)).is_ok(), "{whole:?}");
        }
        for short in [
            &b"\x03a\0\0\x02b\0\x01"[..],
            b"\x02a\0\0\x03b\0\x01",
            b"\x03a\0\x01",
            b"\x03a\0\0\x03b",
            b"\x03a\0\0\0\x03b",
            b"",
        ] {
            assert!(matches!(check_runs(&bmp(short)), Err(Error::BrokenImage { .. })), "{short:?}");
        }
        let skips = bmp(b"\x03a\0\x02\0\x01\x03b\0\x01");
        assert!(matches!(check_runs(&skips), Err(Error::UnsupportedFeature { .. })));
    }
}
