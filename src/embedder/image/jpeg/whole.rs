//! Whether the picture of a JPEG is whole.
//!
//! Each block of each component has to be there, between markers that are where they belong, and nothing else: what is
//! refused are the files of which libjpeg warns, as far as the picture is touched, and those that lack a scan. The codes
//! are read and what they say is passed over, which costs a fraction of the decoding.

use std::borrow::Cow;

use super::frame::Frame;
use super::huffman::{Table, Tables};
use super::interleave::{Coefficients, Quantization};
use super::progressive::Progress;
use super::scan::{Scan, walk};
use super::sequential::{BLOCK, Passed, ScanTables};
use super::{
    APPLICATION_0, APPLICATION_15, END_OF_IMAGE, HUFFMAN_TABLES, NUMBER_OF_LINES, QUANTIZATION_TABLES,
    RESTART_0, RESTART_7, RESTART_INTERVAL, START_OF_IMAGE, START_OF_SCAN, STUFFED, TEMPORARY, bad, broken,
    is_frame, next_marker, segment,
};
use crate::error::Error;

/// Refuses a JPEG whose picture is not whole. Returns what the decoder reads right: the file, or one that it makes of it.
pub(in super::super) fn whole(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    let mut file = File::default();
    let mut lines = None;
    let mut rest = &bytes[2..];
    loop {
        let before = rest;
        let (marker, after) = next_marker(before).ok_or_else(|| broken("it ends early"))?;
        // Some cameras write bytes between segments. Behind a scan they are what is left of a picture.
        if !matches!(file.picture, Picture::None) && before[0] != 0xff {
            return Err(broken("there is data between its scans"));
        }
        rest = match marker {
            END_OF_IMAGE => {
                return Ok(match (file.end()?, lines) {
                    (Some(made), _) => Cow::Owned(made),
                    (None, Some((from, to))) => Cow::Owned([&bytes[..from], &bytes[to..]].concat()),
                    (None, None) => Cow::Borrowed(bytes),
                });
            }
            START_OF_IMAGE => return Err(broken("another picture starts within it")),
            RESTART_0..=RESTART_7 | TEMPORARY | STUFFED => after,
            _ => {
                let (content, next) = segment(after).ok_or_else(|| broken("it ends early"))?;
                match marker {
                    APPLICATION_0..=APPLICATION_15 => file.notes.push((marker, content)),
                    // The frame said it already, and the decoder does not know the segment.
                    NUMBER_OF_LINES => lines = Some((bytes.len() - before.len(), bytes.len() - next.len())),
                    _ => {}
                }
                file.segment(marker, content, next)?
            }
        };
    }
}

/// What the segments of a file said so far.
struct File<'a> {
    huffman: Tables,
    quantization: Quantization,
    restart_interval: u32,
    /// The segments of applications, which say what the colours mean and how the picture is turned.
    notes: Vec<(u8, &'a [u8])>,
    frame: Option<Frame>,
    picture: Picture,
}

/// How much of the picture came.
enum Picture {
    None,
    /// All components in one sequential scan.
    Whole,
    /// Sequential scans, and which components came.
    InScans(Coefficients, Vec<bool>),
    Progressive(Progress),
}

impl Default for File<'_> {
    fn default() -> Self {
        File {
            huffman: Tables::usual(),
            quantization: Quantization::default(),
            restart_interval: 0,
            notes: Vec::new(),
            frame: None,
            picture: Picture::None,
        }
    }
}

impl<'a> File<'a> {
    /// Takes up a segment and returns what follows it: `rest`, less the data of a scan.
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
            self.quantization.table(frame.components[part.component].quantization)?;
        }
        if !frame.progressive && (scan.first, scan.last, scan.high, scan.low) != (0, BLOCK - 1, 0, 0) {
            return Err(bad("scan header"));
        }
        if matches!(self.picture, Picture::None) {
            self.picture = if frame.progressive {
                Picture::Progressive(Progress::new(frame))
            } else if scan.parts.len() < frame.components.len() {
                Picture::InScans(Coefficients::new(frame), vec![false; frame.components.len()])
            } else {
                let tables = both(&self.huffman, &scan)?;
                let tables = ScanTables::new(scan.unit(frame).map(|part| tables[part]));
                let mut blocks = Passed::new(&tables);
                let rest = walk(data, frame, &scan, self.restart_interval, &mut blocks)?;
                self.picture = Picture::Whole;
                return Ok(rest);
            };
        }
        match &mut self.picture {
            Picture::Progressive(progress) => {
                progress.pass(data, frame, &scan, self.restart_interval, &self.huffman)
            }
            Picture::InScans(coefficients, came) => {
                for part in &scan.parts {
                    if std::mem::replace(&mut came[part.component], true) {
                        return Err(broken("a component comes twice"));
                    }
                }
                let tables = both(&self.huffman, &scan)?;
                coefficients.read(data, frame, &scan, self.restart_interval, tables, &self.quantization)
            }
            Picture::None | Picture::Whole => Err(broken("a component comes twice")),
        }
    }

    /// Refuses a picture of which something is missing. Returns the file that is to be decoded in place of this one.
    fn end(&self) -> Result<Option<Vec<u8>>, Error> {
        match (&self.frame, &self.picture) {
            (Some(_), Picture::Whole) => Ok(None),
            (Some(_), Picture::Progressive(progress)) => progress.check_whole().map(|()| None),
            (Some(frame), Picture::InScans(coefficients, came)) => {
                if came.contains(&false) {
                    return Err(broken("it ends before its last scan"));
                }
                coefficients.write(frame, &self.notes).map(Some)
            }
            _ => Err(broken("it has no picture")),
        }
    }
}

/// The tables of each part of a scan that has all coefficients.
fn both<'t>(tables: &'t Tables, scan: &Scan) -> Result<Vec<(&'t Table, &'t Table)>, Error> {
    scan.parts.iter().map(|part| Ok((tables.dc(part.dc)?, tables.ac(part.ac)?))).collect()
}
