//! Whether the picture of a JPEG is whole.
//!
//! Each block of each component has to be there, between markers that are where they belong, and nothing else. So the
//! files are refused that libjpeg warns of, where the picture is touched, and the files that lack a scan. The codes are
//! read, but no pixel is computed from them: that costs a fraction of the decoding.

use std::borrow::Cow;
use std::ops::Range;

use super::frame::{BLOCK, Frame};
use super::huffman::{Tables, write_usual};
use super::interleave::{OneScan, Scans};
use super::marker::{
    APPLICATION_0, APPLICATION_14, END_OF_IMAGE, FRAME_0, FRAME_1, HUFFMAN_TABLES, NUMBER_OF_LINES,
    QUANTIZATION_TABLES, RESTART_0, RESTART_7, RESTART_INTERVAL, START_OF_IMAGE, START_OF_SCAN, STUFFED,
    TEMPORARY, is_frame, next_marker, segment,
};
use super::progressive::Progress;
use super::quantization;
use super::refusal::{bad, broken};
use super::scan::{Scan, walk};
use super::sequential::{Passed, ScanTables};
use crate::error::Error;

/// Refuses a JPEG whose picture is not whole. Returns the file where the decoder reads it right, or else a copy
/// that it does.
pub(in super::super) fn whole(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut file = File::default();
    let mut changes = Changes::default();
    let mut rest = &bytes[2..];
    loop {
        let before = rest;
        let (marker, after) = next_marker(before).ok_or_else(|| broken("it ends early"))?;
        // Some cameras write bytes between segments. Behind a scan they are the rest of a picture.
        if !matches!(file.picture, Picture::None) && before[0] != 0xff {
            return Err(broken("there is data between its scans"));
        }
        rest = match marker {
            END_OF_IMAGE => {
                if let Some(made) = file.end(bytes)? {
                    return Ok(Cow::Owned(made));
                }
                return Ok(changes.made(bytes, &file));
            }
            START_OF_IMAGE => return Err(broken("another picture starts within it")),
            RESTART_0..=RESTART_7 | TEMPORARY | STUFFED => after,
            _ => {
                let (content, next) = segment(after).ok_or_else(|| broken("it ends early"))?;
                let at = bytes.len() - after.len();
                changes.note(marker, content, at..bytes.len() - next.len());
                file.segment(marker, content, next)?
            }
        };
    }
}

/// The parts of a file that the decoder would read otherwise than libjpeg does.
#[derive(Default)]
struct Changes {
    /// A segment with the height, which the frame said already. The decoder does not know it.
    lines: Option<Range<usize>>,
    /// The marker of an extended sequential frame. A baseline one says the same to the decoder, which knows no other.
    extended: Option<usize>,
    /// A segment of JFIF: the colours are YCbCr, also where another segment says otherwise.
    jfif: bool,
    /// Where Adobe's segment says how colours are coded.
    adobe: Option<usize>,
    /// Whether there are Huffman tables. Motion JPEG leaves out the usual ones, which the decoder does not have.
    tables: bool,
}

impl Changes {
    /// Takes up a segment and its place, behind its marker.
    fn note(&mut self, marker: u8, segment: &[u8], place: Range<usize>) {
        match marker {
            NUMBER_OF_LINES => self.lines = Some(place.start - 2..place.end),
            FRAME_1 => self.extended = Some(place.start - 1),
            HUFFMAN_TABLES => self.tables = true,
            APPLICATION_0 => self.jfif |= segment.len() >= 16 && segment[2..].starts_with(b"JFIF\0"),
            APPLICATION_14 if segment.len() >= 14 && segment[2..].starts_with(b"Adobe") => {
                self.adobe = Some(place.start + 13);
            }
            _ => {}
        }
    }

    fn made<'a>(self, bytes: &'a [u8], file: &File) -> Cow<'a, [u8]> {
        let mut bytes = Cow::Borrowed(bytes);
        let colours = file.frame.as_ref().map_or(0, |frame| frame.components.len());
        if let Some(at) = self.adobe.filter(|at| self.jfif && colours == 3 && bytes[*at] != YCBCR) {
            bytes.to_mut()[at] = YCBCR;
        }
        if let Some(at) = self.extended {
            bytes.to_mut()[at] = FRAME_0;
        }
        if let Some(place) = self.lines {
            bytes.to_mut().drain(place);
        }
        if !self.tables {
            let mut all = bytes[..2].to_vec();
            write_usual(&mut all);
            all.extend_from_slice(&bytes[2..]);
            bytes = Cow::Owned(all);
        }
        bytes
    }
}

/// How Adobe's segment says that colours are YCbCr.
const YCBCR: u8 = 1;

/// The tables and the frame that the file's segments gave so far.
struct File<'a> {
    huffman: Tables,
    quantization: quantization::Tables,
    restart_interval: u32,
    frame: Option<Frame>,
    picture: Picture<'a>,
}

/// How much of the picture came.
enum Picture<'a> {
    None,
    /// All components in one sequential scan.
    Whole,
    /// Components in several sequential scans.
    InScans(Scans<'a>),
    Progressive(Progress),
}

impl Default for File<'_> {
    fn default() -> Self {
        File {
            huffman: Tables::usual(),
            quantization: quantization::Tables::default(),
            restart_interval: 0,
            frame: None,
            picture: Picture::None,
        }
    }
}

impl<'a> File<'a> {
    /// Takes up a segment and returns the bytes behind it: `rest`, less the data of a scan.
    fn segment(&mut self, marker: u8, segment: &[u8], rest: &'a [u8]) -> Result<&'a [u8], Error> {
        match marker {
            HUFFMAN_TABLES => self.huffman.define(segment)?,
            QUANTIZATION_TABLES => self.quantization.define(segment)?,
            RESTART_INTERVAL => {
                let [_, _, high, low] = *segment else { return Err(bad("restart interval")) };
                self.restart_interval = u16::from_be_bytes([high, low]).into();
            }
            START_OF_SCAN => return self.scan(segment, rest),
            _ if is_frame(marker) => {
                if self.frame.is_some() {
                    return Err(broken("another picture starts within it"));
                }
                self.frame = Some(Frame::read(marker, segment)?);
            }
            _ => {}
        }
        Ok(rest)
    }

    fn scan(&mut self, segment: &[u8], data: &'a [u8]) -> Result<&'a [u8], Error> {
        let frame = self.frame.as_ref().ok_or_else(|| broken("a scan comes before its frame"))?;
        let scan = Scan::read(segment, frame)?;
        for part in &scan.parts {
            self.quantization.get(frame.components[part.component].quantization)?;
        }
        if !frame.progressive && (scan.first, scan.last, scan.high, scan.low) != (0, BLOCK - 1, 0, 0) {
            return Err(bad("scan header"));
        }
        if matches!(self.picture, Picture::None) {
            self.picture = if frame.progressive {
                Picture::Progressive(Progress::new(frame))
            } else if scan.parts.len() < frame.components.len() {
                Picture::InScans(Scans::new(frame))
            } else {
                let tables = ScanTables::new(&scan, frame, &self.huffman, 15)?;
                let rest = walk(data, frame, &scan, self.restart_interval, &mut Passed::new(&tables))?;
                self.picture = Picture::Whole;
                return Ok(rest);
            };
        }
        let restart_interval = self.restart_interval;
        match &mut self.picture {
            Picture::Progressive(progress) => {
                progress.pass(data, frame, &scan, restart_interval, &self.huffman)
            }
            Picture::InScans(scans) => {
                if scan.parts.iter().any(|part| scans.has(part.component)) {
                    return Err(broken("a component comes twice"));
                }
                let tables = ScanTables::new(&scan, frame, &self.huffman, MAX_SIZE)?;
                let rest = walk(data, frame, &scan, restart_interval, &mut Passed::new(&tables))?;
                scans.add(frame, OneScan { scan, data, restart_interval, tables }, &self.quantization)?;
                Ok(rest)
            }
            Picture::None | Picture::Whole => Err(broken("a component comes twice")),
        }
    }

    /// Refuses a picture of which something is missing. Returns the bytes to decode in place of the file, which is
    /// `bytes`.
    fn end(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match (&self.frame, &self.picture) {
            (Some(_), Picture::Whole) => Ok(None),
            (Some(_), Picture::Progressive(progress)) => progress.check_whole().map(|()| None),
            (Some(frame), Picture::InScans(scans)) => scans.write(frame, bytes).map(Some),
            _ => Err(broken("it has no picture")),
        }
    }
}

/// The most bits of a coefficient where a sample has 8 bits.
const MAX_SIZE: u8 = 10;
