//! Scans of a progressive JPEG with the first bits of the coefficients in a band.

use std::hint::select_unpredictable;
use std::ops::Range;

use super::bits::{Bits, FILLED};
use super::huffman::{LOOK, Table, ZEROS};
use super::pick::Pick;
use super::refusal::bad;
use super::scan::{Blocks, Scan};
use super::several::{Codes, Levels, Several, first};
use crate::error::Error;

/// Notes which coefficients are not zero.
pub(super) struct FirstBits<'a> {
    table: &'a Table,
    runs: Box<Several<Run>>,
    first: u8,
    last: u8,
    /// For each block the coefficients that are not zero, a bit for each.
    present: &'a mut [u64],
    /// How many blocks from the next one on have nothing.
    empty: usize,
}

impl<'a> FirstBits<'a> {
    pub(super) fn new(table: &'a Table, scan: &Scan, present: &'a mut [u64]) -> FirstBits<'a> {
        let codes = first(table, |places, symbol, length| {
            let (zeros, size) = (symbol >> 4, symbol & 15);
            if size > 0 || symbol == ZEROS {
                let value = u32::from(size > 0) << zeros;
                let run = Run { values: value, blocks: 0, bits: length + size, coefficients: zeros + 1 };
                places.fill((length, run));
            } else if u32::from(length + zeros) <= LOOK {
                let total = length + zeros;
                let same = 1 << (LOOK - u32::from(total));
                for (blocks, places) in (1 << zeros..).zip(places.chunks_mut(same)) {
                    places.fill((total, Run { values: 0, blocks, bits: total, coefficients: 0 }));
                }
            }
        });
        let runs = Levels::new(&codes).several();
        FirstBits { table, runs, first: scan.first, last: scan.last, present, empty: 0 }
    }
}

impl Blocks for FirstBits<'_> {
    #[inline(always)]
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        let (first, end) = (u32::from(self.first), u32::from(self.last) + 1);
        let present = &mut self.present[..units.end];
        let mut local = *bits;
        let mut at = units.start + self.empty;
        let mut next = first;
        while at < units.end {
            local.fill();
            for _ in 0..AT_ONCE {
                let mut run = self.runs[local.peek(LOOK) as usize];
                if !run.fits(next, end) {
                    (local, run) = Run::read_one(self.table, local)?;
                    if !run.fits(next, end) {
                        return Err(local.no_code());
                    }
                }
                local.skip(run.bits.into());
                present[at] |= u64::from(run.values) << next;
                let after = next + u32::from(run.coefficients);
                let blocks = usize::from(run.blocks) | usize::from(after == end);
                next = select_unpredictable(blocks > 0, first, after);
                at += blocks;
                if at >= units.end {
                    break;
                }
            }
        }
        self.empty = at - units.end;
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

/// Coefficients, one after the other, and whether blocks end behind them.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Run {
    /// Which of them are not zero, from the lowest bit on.
    values: u32,
    /// How many blocks end: this one, and the next blocks that have nothing. 0 where the block goes on.
    blocks: u16,
    /// The length of the codes and of their values.
    bits: u8,
    /// How many they are, with the zeros between them.
    coefficients: u8,
}

/// How many runs there are to read after [`Bits::fill`]: the value of the last coefficient may lie beyond the bits that
/// were looked at.
const AT_ONCE: u32 = FILLED / (LOOK + 15);

impl Run {
    /// Whether it fits into a block from the coefficient `next` to the one before `end`.
    #[inline(always)]
    fn fits(self, next: u32, end: u32) -> bool {
        next + u32::from(self.coefficients) + u32::from(self.blocks > 0) <= end
    }

    /// Reads one code and skips its values.
    #[cold]
    fn read_one<'b>(table: &Table, mut bits: Bits<'b>) -> Result<(Bits<'b>, Run), Error> {
        bits.fill();
        let symbol = table.symbol(&mut bits)?;
        let (zeros, size) = (symbol >> 4, symbol & 15);
        let run = if size > 0 || symbol == ZEROS {
            bits.skip(size.into());
            Run { values: u32::from(size > 0) << zeros, coefficients: zeros + 1, blocks: 0, bits: 0 }
        } else {
            let blocks = (1 << zeros) + bits.take(zeros.into());
            Run { values: 0, coefficients: 0, blocks: blocks as u16, bits: 0 }
        };
        bits.fill();
        Ok((bits, run))
    }
}

impl Codes for Run {
    /// More than a block has.
    const NONE: Run = Run { values: 0, blocks: 0, bits: 0, coefficients: 128 };

    fn bits(self) -> u32 {
        self.bits.into()
    }

    #[inline(always)]
    fn and(self, behind: Run) -> Run {
        let coefficients = self.coefficients + behind.coefficients;
        // The values have 32 bits.
        if self.blocks > 0 || coefficients > 32 {
            return self;
        }
        let values = self.values | behind.values << (self.coefficients & 31);
        Run { values, blocks: behind.blocks, bits: self.bits + behind.bits, coefficients }
    }
}
