//! The bits of a scan.
//!
//! After its last byte a scan reads as zeros without end; [`Bits::check_read`] and [`Bits::finish`] tell whether bits
//! were read that were not there.

use super::broken;
use crate::error::Error;

pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    /// The next bits, from the left; zeros behind them.
    buffer: u64,
    /// The bits in the buffer.
    length: u32,
    /// How many of them are no data, at its end.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Bits<'a> {
        Bits { data, at: 0, buffer: 0, length: 0, made_up: 0 }
    }

    /// Sees to it that there are 32 bits to read.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        if self.length >= 32 {
            return;
        }
        let next = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<4>());
        match next.map(|bytes| u32::from_be_bytes(*bytes)) {
            Some(bytes) if !has_marker(bytes) => {
                self.buffer |= u64::from(bytes) << (32 - self.length);
                self.length += 32;
                self.at += 4;
            }
            _ => self.fill_by_bytes(),
        }
    }

    #[cold]
    fn fill_by_bytes(&mut self) {
        while self.length <= 56 {
            match self.next_byte() {
                Some(byte) => self.buffer |= u64::from(byte) << (56 - self.length),
                None => self.made_up += 8,
            }
            self.length += 8;
        }
    }

    /// The next byte of data; none before a marker. 0xff is written with 0x00 behind it.
    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.data.get(self.at)?;
        if byte != 0xff {
            self.at += 1;
            return Some(byte);
        }
        let fill = self.data[self.at..].iter().position(|byte| *byte != 0xff)?;
        if self.data[self.at + fill] != 0 {
            return None;
        }
        self.at += fill + 1;
        Some(0xff)
    }

    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.buffer >> (64 - count)) as u32
    }

    /// How many bits there are without filling up, less than 64 of them.
    #[inline(always)]
    pub(super) fn left(&self) -> u8 {
        self.length.min(63) as u8
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.length -= count;
    }

    /// The next `count` bits, at most 16 and possibly none.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = (self.buffer >> 32 >> (32 - count)) as u32;
        self.skip(count);
        bits
    }

    /// Refuses a scan of which more was read than there is.
    #[inline(always)]
    pub(super) fn check_read(&self) -> Result<(), Error> {
        if self.length < self.made_up {
            return Err(broken("the data of a scan ends before its picture"));
        }
        Ok(())
    }

    /// Goes to the marker behind the data, which has to be there: at most seven bits lie between, and behind the last unit
    /// of a scan zeros that some cameras add. Returns what follows, from the marker on.
    pub(super) fn finish(mut self, zeros: Zeros) -> Result<&'a [u8], Error> {
        self.check_read()?;
        let rest = (self.length - self.made_up) % 8;
        let filled = self.take(rest) == (1 << rest) - 1;
        let bytes = ((self.length - self.made_up) / 8) as usize;
        let mut empty = self.buffer == 0;
        let read = &self.data[..self.at - bytes.min(self.at)];
        let mut added = bytes > 0;
        while let Some(byte) = self.next_byte() {
            empty &= byte == 0;
            added = true;
        }
        // Where data was zeroed, the picture ends within the zeros, and not behind a byte that is filled up with ones.
        let zeroed = !filled || rest == 0 && read.ends_with(&[0]) && !read.ends_with(&[0xff, 0]);
        if added && (!empty || zeroed || zeros == Zeros::Refused) {
            return Err(broken("a scan has more data than its picture"));
        }
        Ok(&self.data[self.at..])
    }
}

/// Whether zeros may follow the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zeros {
    Passed,
    Refused,
}

/// Whether a byte is 0xff.
#[inline(always)]
fn has_marker(bytes: u32) -> bool {
    let inverted = !bytes;
    inverted.wrapping_sub(0x0101_0101) & !inverted & 0x8080_8080 != 0
}
