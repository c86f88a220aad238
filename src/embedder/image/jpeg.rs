//! A JPEG before it is decoded.
//!
//! The decoder fills missing parts with grey, passes over data that it cannot read, and takes as many scans as
//! there are: a damaged upload would be embedded as if it were whole, and a small file could take minutes. So the
//! markers are walked for the size ([`check`]), and then the scans, code by code, for whether the picture is whole
//! ([`whole`]). Source: ITU-T T.81, annex B.

mod bits;
mod first_bits;
mod frame;
mod huffman;
mod interleave;
mod marker;
mod needed_memory;
mod next_bits;
mod pick;
mod progressive;
mod quantization;
mod refusal;
mod rows;
mod scan;
mod sequential;
mod several;
mod steps;
mod whole;
mod written;

use std::borrow::Cow;

use self::frame::Frame;
use self::marker::{
    APPLICATION_1, APPLICATION_14, END_OF_IMAGE, HUFFMAN_TABLES, NUMBER_OF_LINES, START_OF_SCAN, is_frame,
    segments,
};
use self::refusal::broken;
pub(super) use self::whole::whole;
use super::metadata::Metadata;
use crate::error::Error;

/// The most scans of a progressive JPEG. Encoders write about ten.
const MAX_SCANS: usize = 100;

/// Refuses a JPEG that is incomplete, of a kind that the decoder does not know, or of a size that `admit` refuses.
/// The size is checked as soon as it is read: an image that is too large is refused as such, and not for later
/// errors. Returns the memory that its decoding takes, in bytes.
pub(super) fn check(bytes: &[u8], admit: impl Fn(u32, u32) -> Result<(), Error>) -> Result<u64, Error> {
    let mut seen: Option<Frame> = None;
    let mut scans = 0;
    let (mut several, mut copied) = (false, true);
    for (marker, segment) in segments(bytes) {
        match marker {
            END_OF_IMAGE => match seen {
                Some(frame) if scans > 0 => {
                    let copy = if copied || frame.extended { 2 * bytes.len() as u64 } else { 0 };
                    return Ok(needed_memory::of(&frame, bytes.len(), several) + copy);
                }
                _ => return Err(broken("it has no picture")),
            },
            HUFFMAN_TABLES => copied = false,
            NUMBER_OF_LINES | APPLICATION_14 => copied = true,
            START_OF_SCAN => {
                scans += 1;
                several |= seen.as_ref().is_some_and(|frame| {
                    segment.get(2).is_none_or(|count| usize::from(*count) < frame.components.len())
                });
            }
            _ if is_frame(marker) => {
                let frame = Frame::read(marker, segment)?;
                admit(frame.width, frame.height)?;
                seen = Some(frame);
            }
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(Error::TooManyScans { limit: MAX_SCANS });
        }
    }
    Err(broken("it ends early"))
}

/// The metadata in the segments before the first scan. A directory of EXIF may be in several of them, and of XMP
/// packets the last one counts.
pub(super) fn metadata(bytes: &[u8]) -> Metadata<'_> {
    let notes = || {
        let head = segments(bytes).take_while(|(marker, _)| *marker != START_OF_SCAN);
        head.filter(|(marker, _)| *marker == APPLICATION_1).map(|(_, segment)| &segment[2..])
    };
    let parts = || notes().filter(|note| note.starts_with(EXIF));
    let exif = parts().next().map(|first| {
        let length = parts().map(<[u8]>::len).sum();
        if length == first.len() {
            return Cow::Borrowed(first);
        }
        let mut all = Vec::with_capacity(length);
        parts().for_each(|part| all.extend_from_slice(&part[EXIF.len()..]));
        Cow::Owned(all)
    });
    Metadata { exif, xmp: notes().filter_map(|note| note.strip_prefix(XMP)).last().map(Cow::Borrowed) }
}

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

#[cfg(test)]
mod tests {
    use super::super::memory;
    use super::marker::{FRAME_0, FRAME_1};
    use super::*;

    const FRAME: &[u8] = b"\xff\xc0\0\x0b\x08\x01\xe0\x02\x80\x01\x01\x11\0";
    const SCAN: &[u8] = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0\x12\xff\0\x34\xff\xd0\x56";

    fn jpeg(parts: &[&[u8]]) -> Vec<u8> {
        [b"\xff\xd8", parts.concat().as_slice()].concat()
    }

    fn any_size(_: u32, _: u32) -> Result<(), Error> {
        Ok(())
    }

    #[test]
    fn a_whole_file_has_a_size() {
        // An end marker within a segment, as in an EXIF thumbnail, does not count.
        let thumbnail = b"\xff\xe1\0\x06\xff\xd8\xff\xd9";
        let size = std::cell::Cell::new((0, 0));
        let admit = |width, height| {
            size.set((width, height));
            Ok(())
        };
        check(&jpeg(&[thumbnail, FRAME, SCAN, b"\xff\xd9 and a tail"]), admit).unwrap();
        assert_eq!(size.get(), (640, 480));
    }

    #[test]
    fn a_size_is_refused_before_the_rest_is_looked_at() {
        let refuse = |width, height| Err(Error::NoPixels { width, height });
        assert!(matches!(check(&jpeg(&[FRAME]), refuse), Err(Error::NoPixels { .. })));
    }

    #[test]
    fn a_file_without_its_end_is_refused_at_every_length() {
        let whole = jpeg(&[FRAME, SCAN, b"\xff\xd9"]);
        for length in 3..whole.len() {
            assert!(matches!(check(&whole[..length], any_size), Err(Error::BrokenImage { .. })), "{length}");
        }
    }

    #[test]
    fn a_thousand_scans_are_refused() {
        let parts = [FRAME].into_iter().chain([SCAN; 1000]).chain([&b"\xff\xd9"[..]]).collect::<Vec<_>>();
        assert!(matches!(check(&jpeg(&parts), any_size), Err(Error::TooManyScans { limit: 100 })));
    }

    #[test]
    fn coefficients_count_where_they_are_kept() {
        // 4:2:0 in units of 16 × 16 pixels, each of four blocks of luma and two of chroma.
        let frame =
            |marker| [0xff, marker, 0, 17, 8, 1, 0xe0, 2, 0x80, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
        let scan = |components| [0xff, 0xda, 0, 6, components, 0, 0, 0];
        let memory = |marker, components| {
            let tables = b"\xff\xc4\0\x02";
            check(&jpeg(&[tables, &frame(marker), &scan(components), b"\xff\xd9"]), any_size).unwrap()
        };
        let pixels = 640 * 480;
        assert_eq!(memory(FRAME_0, 3), pixels * 4);
        assert_eq!(memory(0xc2, 3), pixels * 4 + 7_200 * 128);
        // A file with 7,200 blocks, and a row of units with 240.
        let written = 4 * (2 + 4 + 19 + 8 + 2 + 2 * 7_200 + 2048);
        assert_eq!(memory(FRAME_0, 1), pixels * 4 + written + 240 * rows::BLOCK_MEMORY as u64);
    }

    #[test]
    fn segments_that_the_decoder_reads_otherwise_are_changed_in_a_copy() {
        let memory = |parts: &[&[u8]]| {
            let bytes = jpeg(&[parts, &[SCAN, b"\xff\xd9"]].concat());
            (check(&bytes, any_size).unwrap() - memory::jpeg(640 * 480)) / bytes.len() as u64
        };
        let extended = [&[0xff, FRAME_1], &FRAME[2..]].concat();
        let tables: &[u8] = b"\xff\xc4\0\x02";
        assert_eq!(memory(&[tables, FRAME]), 0);
        assert_eq!(memory(&[FRAME]), 2);
        assert_eq!(memory(&[tables, &extended]), 2);
        assert_eq!(memory(&[tables, b"\xff\xee\0\x02", FRAME]), 2);
    }

    #[test]
    fn frames_that_no_decoder_here_knows_are_named() {
        for (marker, precision, name) in
            [(0xc3, 8, "lossless JPEG"), (0xc9, 8, "arithmetic-coded JPEG"), (0xc0, 12, "12-bit JPEG")]
        {
            let mut frame = FRAME.to_vec();
            (frame[1], frame[4]) = (marker, precision);
            match check(&jpeg(&[&frame, SCAN, b"\xff\xd9"]), any_size) {
                Err(Error::UnsupportedFormat { format }) => assert_eq!(format, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
