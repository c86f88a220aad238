//! The chunks of a WebP, walked before it is decoded.
//!
//! The decoder allocates for the size that a frame says in its own header, and compares it with the canvas
//! afterwards: a file of a few hundred bytes with a small canvas would take the memory of 16,383 × 16,383 pixels.
//! And it accepts a chunk that is cut: a file that ends early would be embedded as if it were whole. Source: RFC
//! 9649.

use std::borrow::Cow;

use super::memory::{self, WebP};
use super::metadata::Metadata;
use crate::error::Error;

/// Refuses a WebP of a size that `admit` refuses, that ends early, or with a frame that is larger than its canvas. Returns the memory that
/// its decoding takes, in bytes.
pub(super) fn check(bytes: &[u8], admit: impl Fn(u32, u32) -> Result<(), Error>) -> Result<u64, Error> {
    let end = end(bytes);
    let mut chunks = chunks(bytes);
    let first = chunks.next().ok_or_else(|| broken("its header is incomplete"))?;
    let (width, height) = first.size().ok_or_else(|| broken("its header is incomplete"))?;
    admit(width, height)?;
    if bytes.len() < end || first.cut {
        return Err(broken("it ends early"));
    }
    let mut kind = match &first.name {
        b"VP8 " => WebP::Lossy,
        b"VP8L" => WebP::Lossless,
        _ => WebP::Extended,
    };
    if kind == WebP::Extended {
        for chunk in chunks {
            if chunk.cut {
                return Err(broken("it ends early"));
            }
            let frames = match &chunk.name {
                b"ANMF" => {
                    kind = WebP::Animated;
                    Chunks { rest: chunk.payload.get(FRAME_HEADER..).unwrap_or_default() }
                }
                _ => Chunks { rest: chunk.whole },
            };
            for frame in frames.filter(Chunk::is_frame) {
                if frame.cut {
                    return Err(broken("it ends early"));
                }
                if frame.size().is_some_and(|size| size.0 > width || size.1 > height) {
                    return Err(broken("a frame is larger than its canvas"));
                }
            }
        }
    }
    Ok(memory::webp(u64::from(width) * u64::from(height), kind))
}

/// The metadata in the chunks of a WebP that was checked: the first one of each kind, where the canvas says that
/// there is one.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let canvas = chunks(bytes).next().filter(|chunk| &chunk.name == b"VP8X");
    let flags = canvas.and_then(|canvas| canvas.payload.first().copied()).unwrap_or(0);
    let find = |flag, name: &[u8; 4]| {
        let chunk = chunks(bytes).skip(1).find(|chunk| &chunk.name == name).filter(|_| flags & flag > 0)?;
        (!chunk.payload.is_empty()).then_some(Cow::Borrowed(chunk.payload))
    };
    Metadata { exif: find(HAS_EXIF, b"EXIF"), xmp: find(HAS_XMP, b"XMP ") }
}

const HAS_EXIF: u8 = 1 << 3;
const HAS_XMP: u8 = 1 << 2;

/// Of an ANMF chunk, before the chunks of its frame: place, size, duration and how it is blended.
const FRAME_HEADER: usize = 16;

/// Where the file ends, as it says.
fn end(bytes: &[u8]) -> usize {
    let length = take(bytes, 4).map_or(0, u32::from_le_bytes) as usize;
    length.saturating_add(8)
}

fn chunks(bytes: &[u8]) -> Chunks<'_> {
    Chunks { rest: bytes.get(12..end(bytes).min(bytes.len())).unwrap_or_default() }
}

struct Chunk<'a> {
    name: [u8; 4],
    /// The payload, as far as it is there.
    payload: &'a [u8],
    /// Whether it is shorter than it says.
    cut: bool,
    /// The payload with its name and length before it.
    whole: &'a [u8],
}

impl Chunk<'_> {
    fn is_frame(&self) -> bool {
        matches!(&self.name, b"VP8 " | b"VP8L")
    }

    /// The size of a frame, or of the canvas.
    fn size(&self) -> Option<(u32, u32)> {
        match &self.name {
            b"VP8 " => {
                let [width, height] = [6, 8].map(|at| take(self.payload, at).map(u16::from_le_bytes));
                Some(((width? & 0x3fff).into(), (height? & 0x3fff).into()))
            }
            b"VP8L" => {
                let packed = u32::from_le_bytes(take(self.payload, 1)?);
                Some(((packed & 0x3fff) + 1, (packed >> 14 & 0x3fff) + 1))
            }
            b"VP8X" => {
                let [width, height] = [4, 7].map(|at| take(self.payload, at));
                let less_one = |[a, b, c]: [u8; 3]| u32::from_le_bytes([a, b, c, 0]);
                Some((less_one(width?) + 1, less_one(height?) + 1))
            }
            _ => None,
        }
    }
}

struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let name = take(self.rest, 0)?;
        let length = u32::from_le_bytes(take(self.rest, 4)?);
        // A chunk of an odd length has a byte after it that does not count.
        let wanted = 8_usize.saturating_add(length as usize);
        let end = wanted.min(self.rest.len());
        let next = end.saturating_add(length as usize % 2).min(self.rest.len());
        let whole = &self.rest[..end];
        self.rest = &self.rest[next..];
        Some(Chunk { name, payload: &whole[8..], cut: end < wanted, whole })
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn broken(reason: &str) -> Error {
    Error::BrokenImage { format: "WebP", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn webp(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let chunks = [b"WEBP", riff(chunks).as_slice()].concat();
        let length = u32::try_from(chunks.len()).unwrap();
        [b"RIFF", length.to_le_bytes().as_slice(), &chunks].concat()
    }

    fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, payload) in chunks {
            bytes.extend_from_slice(*name);
            bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(payload);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    /// 640 × 480, as a canvas and as frames.
    const CANVAS: (&[u8; 4], &[u8]) = (b"VP8X", b"\0\0\0\0\x7f\x02\0\xdf\x01\0");
    const LOSSY: (&[u8; 4], &[u8]) = (b"VP8 ", b"\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01");
    const LOSSLESS: (&[u8; 4], &[u8]) = (b"VP8L", b"\x2f\x7f\xc2\x77\0");
    const TOO_WIDE: (&[u8; 4], &[u8]) = (b"VP8 ", b"\0\0\0\x9d\x01\x2a\x81\x02\xe0\x01");

    fn size(bytes: &[u8]) -> Result<(u32, u32), Error> {
        let size = Cell::new((0, 0));
        check(bytes, |width, height| {
            size.set((width, height));
            Ok(())
        })?;
        Ok(size.get())
    }

    #[test]
    fn the_size_is_that_of_the_canvas() {
        for chunks in [&[LOSSY][..], &[LOSSLESS], &[CANVAS, LOSSY], &[CANVAS, (b"EXIF", b"odd"), LOSSLESS]] {
            assert_eq!(size(&webp(chunks)).unwrap(), (640, 480));
        }
    }

    #[test]
    fn a_frame_larger_than_its_canvas_is_refused() {
        let animated = [[0; FRAME_HEADER].to_vec(), riff(&[TOO_WIDE])].concat();
        for chunks in [&[CANVAS, TOO_WIDE][..], &[CANVAS, LOSSY, TOO_WIDE], &[CANVAS, (b"ANMF", &animated)]] {
            assert!(matches!(size(&webp(chunks)), Err(Error::BrokenImage { .. })));
        }
    }

    #[test]
    fn a_file_that_ends_early_is_refused() {
        let whole = webp(&[CANVAS, LOSSY]);
        for length in 0..whole.len() {
            assert!(matches!(size(&whole[..length]), Err(Error::BrokenImage { .. })), "{length}");
        }
        let tail = [whole.as_slice(), b"and a tail"].concat();
        assert_eq!(size(&tail).unwrap(), (640, 480));
    }

    #[test]
    fn a_chunk_that_leads_beyond_the_file_is_refused() {
        for chunks in [&[LOSSY][..], &[CANVAS, LOSSY]] {
            let mut bytes = webp(chunks);
            let frame = bytes.windows(4).position(|name| name == b"VP8 ").unwrap();
            bytes[frame + 4] += 1;
            assert!(matches!(size(&bytes), Err(Error::BrokenImage { .. })));
        }
    }
}
