//! The bits of a scan.
//!
//! After its last byte a scan reads as zeros without end; [`Bits::check_read`] and [`Bits::finish`] tell whether bits
//! were read that were not there.

use super::refusal::{bad, broken};
use crate::error::Error;

/// A loop keeps a copy of its own, which stays in registers because the slow ways take and return one.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The bytes that are not in the buffer yet.
    rest: &'a [u8],
    /// The next bits, from the left; behind them zeros, or the first bits of the next byte.
    buffer: u64,
    /// The bits in the buffer. Only the lowest 6 bits of this number count.
    length: u32,
    /// How many of them are no data, at its end.
    made_up: u32,
}

/// How many bits there are to read after [`Bits::fill`].
pub(super) const FILLED: u32 = 56;

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Bits<'a> {
        Bits { data, rest: data, buffer: 0, length: 0, made_up: 0 }
    }

    /// Sees to it that there are [`FILLED`] bits to read.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        match self.rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) {
            Some(bytes) if !has_marker(bytes) => {
                self.buffer |= bytes >> (self.length % 64);
                self.rest = &self.rest[(!self.length % 64 / 8) as usize..];
                self.length = FILLED | (self.length % 8);
            }
            _ => *self = self.filled_by_bytes(),
        }
    }

    #[cold]
    fn filled_by_bytes(mut self) -> Bits<'a> {
        self.length = self.length();
        while self.length < FILLED {
            match self.next_byte() {
                Some(byte) => self.buffer |= u64::from(byte) << (56 - self.length),
                None => self.made_up += 8,
            }
            self.length += 8;
        }
        self
    }

    /// The next byte of data; none before a marker. 0xff is written with 0x00 behind it.
    fn next_byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        if *byte != 0xff {
            self.rest = rest;
            return Some(*byte);
        }
        let fill = rest.iter().position(|byte| *byte != 0xff)?;
        if rest[fill] != 0 {
            return None;
        }
        self.rest = &rest[fill + 1..];
        Some(0xff)
    }

    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.buffer >> (64 - count)) as u32
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length % 64
    }

    #[inline(always)]
    pub(super) fn has(&self, count: u32) -> bool {
        self.length() >= count
    }

    /// Skips as many bits as the lowest 6 bits of a number say, which have to be in the buffer.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.buffer <<= count % 64;
        self.length = self.length.wrapping_sub(count);
    }

    /// The next `count` bits, at most 32 and possibly none.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let bits = (self.buffer >> 32 >> (32 - count)) as u32;
        self.skip(count);
        bits
    }

    /// Skips any number of bits.
    #[inline(always)]
    pub(super) fn skip_many(&mut self, count: usize) {
        if count <= self.length() as usize {
            self.skip(count as u32);
        } else {
            *self = self.skipped_many(count);
        }
    }

    #[cold]
    fn skipped_many(mut self, mut count: usize) -> Bits<'a> {
        while count > self.length() as usize {
            count -= self.length() as usize;
            (self.buffer, self.length) = (0, 0);
            if self.made_up > 0 {
                return self;
            }
            let ahead = &self.rest[..self.rest.len().min(count / 8)];
            let plain = memchr::memchr(0xff, ahead).unwrap_or(ahead.len());
            self.rest = &self.rest[plain..];
            count -= 8 * plain;
            self.fill();
        }
        self.skip(count as u32);
        self
    }

    /// Refuses a scan of which more was read than there is.
    #[inline(always)]
    pub(super) fn check_read(&self) -> Result<(), Error> {
        if self.length() < self.made_up {
            return Err(broken("the data of a scan ends before its picture"));
        }
        Ok(())
    }

    /// Why the bits that come next are refused: they are no code, or there are none.
    #[cold]
    pub(super) fn no_code(&self) -> Error {
        self.check_read().err().unwrap_or_else(|| bad("code in its data"))
    }

    /// Goes to the marker behind the data, which has to be there: at most seven bits lie between, and behind the
    /// last unit of a scan zeros that some cameras add. Returns the rest, from the marker on.
    pub(super) fn finish(mut self, zeros: Zeros) -> Result<&'a [u8], Error> {
        self.check_read()?;
        let rest = (self.length() - self.made_up) % 8;
        let filled = self.take(rest) == (1 << rest) - 1;
        let bytes = ((self.length() - self.made_up) / 8) as usize;
        let mut empty = self.buffer == 0;
        let at = self.data.len() - self.rest.len();
        let read = &self.data[..at - bytes.min(at)];
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
        Ok(self.rest)
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
fn has_marker(bytes: u64) -> bool {
    let inverted = !bytes;
    inverted.wrapping_sub(0x0101_0101_0101_0101) & !inverted & 0x8080_8080_8080_8080 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_leave_out_the_zero_behind_0xff() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let plain: Vec<u8> =
                (0..random.usize(0..200)).map(|_| *random.choice(&[0xff, 0, 0x5a]).unwrap()).collect();
            let mut data: Vec<u8> = plain
                .iter()
                .flat_map(|byte| if *byte == 0xff { vec![0xff, 0] } else { vec![*byte] })
                .collect();
            data.extend([0xff, 0xd9]);
            let expected = |from: usize, count: usize| {
                (from..from + count)
                    .fold(0, |bits, at| bits << 1 | u32::from(plain[at / 8] >> (7 - at % 8) & 1))
            };
            let mut bits = Bits::new(&data);
            let mut at = 0;
            while at < 8 * plain.len() {
                let left = 8 * plain.len() - at;
                if random.bool() {
                    let count = random.usize(0..=left.min(300));
                    bits.skip_many(count);
                    at += count;
                } else {
                    let count = random.usize(0..=left.min(16));
                    bits.fill();
                    assert_eq!(
                        bits.take(count as u32),
                        expected(at, count),
                        "{count} bits at {at} of {plain:?}"
                    );
                    at += count;
                }
            }
            bits.check_read().unwrap();
            assert_eq!(bits.finish(Zeros::Refused).unwrap(), [0xff, 0xd9]);
            bits.fill();
            bits.skip(1);
            assert!(bits.check_read().is_err());
        }
    }
}
