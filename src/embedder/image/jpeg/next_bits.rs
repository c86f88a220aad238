//! Scans of a progressive JPEG with the next bit of the coefficients in a band.
//!
//! A code says which coefficient is no longer zero, counted among the ones that are. Its sign follows, and a bit of each
//! other coefficient on the way.

use std::hint::select_unpredictable;
use std::ops::Range;

use super::bits::Bits;
use super::huffman::{LOOK, Table, ZEROS};
use super::pick::Pick;
use super::refusal::bad;
use super::scan::{Blocks, Scan};
use crate::error::Error;

/// Notes which coefficients are no longer zero.
pub(super) struct NextBits<'a> {
    table: &'a Table,
    /// By the next bits the code that they begin with.
    codes: Box<[Code; 1 << LOOK]>,
    /// The band, a bit for each coefficient.
    band: u64,
    /// For each block the coefficients that are not zero, and one word more.
    present: &'a mut [u64],
    /// How many blocks from the next one on have no new coefficient.
    empty: usize,
}

impl<'a> NextBits<'a> {
    pub(super) fn new(table: &'a Table, scan: &Scan, present: &'a mut [u64]) -> NextBits<'a> {
        let mut codes = Box::new([Code::OTHER; 1 << LOOK]);
        table.codes(|symbol, length, places| codes[places].fill(Code::new(symbol, length)));
        let band = u64::MAX >> (63 - scan.last) & u64::MAX << scan.first;
        NextBits { table, codes, band, present, empty: 0 }
    }

    /// Passes over blocks without a new coefficient, as far as they come before `end`. Returns how many bits they have.
    fn pass_empty(&mut self, at: &mut usize, end: usize) -> usize {
        let blocks = &self.present[*at..end.min(*at + self.empty)];
        self.empty -= blocks.len();
        *at += blocks.len();
        blocks.iter().map(|present| (present & self.band).count_ones() as usize).sum()
    }
}

impl Blocks for NextBits<'_> {
    // As in a sequential JPEG, the end of a block decides which value is chosen, and never which branch is taken.
    #[inline(always)]
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        let mut local = *bits;
        let mut at = units.start;
        local.skip_many(self.pass_empty(&mut at, units.end));
        let mut present = self.present[at];
        // The coefficients of the block that are still to be passed.
        let mut left = self.band;
        while at < units.end {
            local.fill();
            for _ in 0..AT_ONCE {
                let mut code = self.codes[local.peek(LOOK) as usize];
                if code.is_other() {
                    let blocks;
                    (local, code, blocks) = Code::read_other(self.table, local)?;
                    if blocks > 0 {
                        local.skip_many((present & left).count_ones() as usize);
                        self.present[at] = present;
                        at += 1;
                        self.empty = blocks - 1;
                        local.skip_many(self.pass_empty(&mut at, units.end));
                        (present, left) = (self.present[at], self.band);
                        break;
                    }
                }
                let picked = P::pick(code.pick(), !present & left);
                if picked == 0 && !code.ends() {
                    return Err(local.no_code());
                }
                let passed = left & (picked ^ picked.wrapping_sub(1));
                local.skip_many(code.bits() + (present & passed).count_ones() as usize);
                present |= select_unpredictable(code.is_new(), picked, 0);
                left &= !passed;
                self.present[at] = present;
                let ended = left == 0;
                at += usize::from(ended);
                present = select_unpredictable(ended, self.present[at], present);
                left = select_unpredictable(ended, self.band, left);
                if at == units.end || !local.has(LOOK) {
                    break;
                }
            }
        }
        *bits = local;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        if self.empty > 0 {
            return Err(bad("code in its data"));
        }
        Ok(())
    }
}

/// The most codes that are read before the buffer is filled up.
const AT_ONCE: u32 = 3;

/// A code as a number. The lowest 5 bits are its length, with the sign. From bit 16 on one bit is set, above as
/// many unset bits as the code passes coefficients that are zero; none where the block ends.
#[derive(Clone, Copy)]
struct Code(u32);

/// The coefficient is no longer zero.
const NEW: u32 = 1 << 5;
/// The block ends.
const ENDS: u32 = 1 << 6;
/// The code is longer than [`LOOK`], ends several blocks, or is none.
const OTHER: u32 = 1 << 7;

impl Code {
    /// Is read by [`Code::read_other`].
    const OTHER: Code = Code(OTHER);

    fn new(symbol: u8, length: u8) -> Code {
        let picked = 1 << (16 + (symbol >> 4));
        match symbol & 15 {
            1 => Code(u32::from(length + 1) | NEW | picked),
            0 if symbol == ZEROS => Code(u32::from(length) | picked),
            0 if symbol >> 4 == 0 => Code(u32::from(length) | ENDS),
            _ => Code::OTHER,
        }
    }

    /// Reads any code. Returns also how many blocks end where it ends several, and 0 where not.
    #[cold]
    fn read_other<'b>(table: &Table, mut bits: Bits<'b>) -> Result<(Bits<'b>, Code, usize), Error> {
        bits.fill();
        let symbol = table.symbol(&mut bits)?;
        let code = Code::new(symbol, 0);
        if !code.is_other() {
            return Ok((bits, code, 0));
        }
        if symbol & 15 > 0 {
            return Err(bits.no_code());
        }
        let blocks = (1 << (symbol >> 4)) + bits.take((symbol >> 4).into()) as usize;
        Ok((bits, code, blocks))
    }

    #[inline(always)]
    fn is_other(self) -> bool {
        self.0 & OTHER > 0
    }

    #[inline(always)]
    fn is_new(self) -> bool {
        self.0 & NEW > 0
    }

    #[inline(always)]
    fn ends(self) -> bool {
        self.0 & ENDS > 0
    }

    #[inline(always)]
    fn bits(self) -> usize {
        (self.0 & 31) as usize
    }

    #[inline(always)]
    fn pick(self) -> u32 {
        self.0 >> 16
    }
}
