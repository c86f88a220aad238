//! The markers of a file, and the segments that they begin.

pub(super) const STUFFED: u8 = 0x00;
pub(super) const TEMPORARY: u8 = 0x01;
pub(super) const FRAME_0: u8 = 0xc0;
pub(super) const FRAME_1: u8 = 0xc1;
pub(super) const HUFFMAN_TABLES: u8 = 0xc4;
const EXTENSION: u8 = 0xc8;
const ARITHMETIC_TABLES: u8 = 0xcc;
const FRAME_15: u8 = 0xcf;
pub(super) const RESTART_0: u8 = 0xd0;
pub(super) const RESTART_7: u8 = 0xd7;
pub(super) const START_OF_IMAGE: u8 = 0xd8;
pub(super) const END_OF_IMAGE: u8 = 0xd9;
pub(super) const START_OF_SCAN: u8 = 0xda;
pub(super) const QUANTIZATION_TABLES: u8 = 0xdb;
pub(super) const NUMBER_OF_LINES: u8 = 0xdc;
pub(super) const RESTART_INTERVAL: u8 = 0xdd;
pub(super) const APPLICATION_0: u8 = 0xe0;
pub(super) const APPLICATION_1: u8 = 0xe1;
pub(super) const APPLICATION_14: u8 = 0xee;
pub(super) const APPLICATION_15: u8 = 0xef;

pub(super) fn is_frame(marker: u8) -> bool {
    let others = [HUFFMAN_TABLES, EXTENSION, ARITHMETIC_TABLES];
    (FRAME_0..=FRAME_15).contains(&marker) && !others.contains(&marker)
}

/// The segments of a file, each with its marker and length, and the marker of its end, if that is there.
pub(super) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = &bytes[2..];
    std::iter::from_fn(move || {
        loop {
            let (marker, after) = next_marker(rest)?;
            rest = after;
            match marker {
                END_OF_IMAGE => return Some((marker, &[][..])),
                RESTART_0..=RESTART_7 | START_OF_IMAGE | TEMPORARY | STUFFED => {}
                _ => {
                    let (segment, after) = segment(rest)?;
                    rest = after;
                    return Some((marker, segment));
                }
            }
        }
    })
}

/// The next byte after 0xff that is not a fill byte, and the rest. In the data of a scan that byte is mostly 0x00,
/// which says that 0xff was a value.
pub(super) fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let at = memchr::memchr(0xff, bytes)?;
    let after = &bytes[at..];
    let marker = after.iter().position(|byte| *byte != 0xff)?;
    Some((after[marker], &after[marker + 1..]))
}

pub(super) fn segment(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_be_bytes(*bytes.first_chunk()?);
    bytes.split_at_checked(length.max(2).into())
}
