//! The run lengths of a BMP, counted before it is decoded.
//!
//! The decoder leaves black what the runs do not reach: a picture that ends early, or whose header says more rows than it
//! has, would be embedded as if it were whole. Source: MS-WMF 3.1.6.

use super::format::Format;
use crate::error::Error;

/// Refuses a BMP in run lengths in which a row is not filled to its end.
pub(super) fn check_runs(bytes: &[u8]) -> Result<(), Error> {
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

/// What a value says where the length of a run is 0.
const END_OF_ROW: u8 = 0;
const END_OF_PICTURE: u8 = 1;
const SKIP: u8 = 2;

fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|value| u32::from_le_bytes(*value))
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
