//! The blocks of a sequential scan, a row of units at a time: their means, and all other codes as they are.

use std::ops::Range;

use super::bits::Bits;
use super::frame::{BLOCK, Frame};
use super::huffman::LOOK;
use super::pick::Pick;
use super::refusal::bad;
use super::scan::{Blocks, Scan};
use super::sequential::{BlockTables, ScanTables};
use super::steps::{next_in, room_from};
use super::written::MAX_MEAN_SIZE;
use crate::error::Error;

/// A block: its mean, and which of the codes are its own.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) mean: i16,
    codes: Range<u32>,
}

/// Some codes with their values, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Codes {
    pub(super) bits: u32,
    pub(super) count: u32,
}

/// The most memory that a block takes here, in bytes: each of its codes has at least one coefficient.
pub(super) const BLOCK_MEMORY: usize = size_of::<Option<Block>>() + (BLOCK as usize - 1) * size_of::<Codes>();

/// A row of units of one component.
pub(super) struct Row {
    /// By rows of blocks, whole units; none where a block has no sample of the picture.
    blocks: Vec<Option<Block>>,
    codes: Vec<Codes>,
    width: usize,
}

impl Row {
    pub(super) fn block(&self, x: usize, y: usize) -> Option<&Block> {
        self.blocks[y * self.width + x].as_ref()
    }

    pub(super) fn codes(&self, block: &Block) -> &[Codes] {
        &self.codes[block.codes.start as usize..block.codes.end as usize]
    }
}

/// Reads a scan.
pub(super) struct Rows<'s> {
    scan: &'s Scan,
    frame: &'s Frame,
    tables: &'s ScanTables,
    /// The row that was read last, by the part.
    pub(super) rows: Vec<Row>,
    /// The last mean of each part: the next one is coded as the difference to it.
    means: [i16; 4],
}

impl<'s> Rows<'s> {
    pub(super) fn new(scan: &'s Scan, frame: &'s Frame, tables: &'s ScanTables) -> Rows<'s> {
        let rows = scan.parts.iter().map(|part| {
            let component = &frame.components[part.component];
            let width = component.padded.0 as usize;
            let blocks = width * component.factors.1 as usize;
            let codes = Vec::with_capacity(blocks * (usize::from(BLOCK) - 1));
            Row { blocks: vec![None; blocks], codes, width }
        });
        Rows { scan, frame, tables, rows: rows.collect(), means: [0; 4] }
    }

    /// Forgets the last row. Returns the unit behind the one that is read next, row `y` of the frame's.
    pub(super) fn begin(&mut self, y: u32) -> usize {
        for row in &mut self.rows {
            row.blocks.fill(None);
            row.codes.clear();
        }
        let (across, down) = self.scan.units(self.frame);
        let rows = match *self.scan.parts.as_slice() {
            [part] => self.frame.components[part.component].factors.1,
            _ => 1,
        };
        across as usize * down.min((y + 1) * rows) as usize
    }
}

impl Blocks for Rows<'_> {
    #[inline(always)]
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        let mut local = *bits;
        let across = self.scan.units(self.frame).0 as usize;
        for unit in units {
            let (x, y) = (unit % across, unit / across);
            let single = self.scan.parts.len() == 1;
            let mut at = 0;
            for (number, part) in self.scan.parts.iter().enumerate() {
                let factors = self.frame.components[part.component].factors;
                let (columns, rows) = (factors.0 as usize, factors.1 as usize);
                let row = &mut self.rows[number];
                let mean = &mut self.means[number];
                if single {
                    row.read(&mut local, x, y % rows, mean, self.tables.of(0))?;
                    continue;
                }
                for place in 0..columns * rows {
                    let (h, v) = (place % columns, place / columns);
                    row.read(&mut local, x * columns + h, v, mean, self.tables.of(at))?;
                    at += 1;
                }
            }
        }
        *bits = local;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.means = [0; 4];
        Ok(())
    }
}

impl Row {
    #[inline(always)]
    fn read(
        &mut self,
        bits: &mut Bits,
        x: usize,
        y: usize,
        mean: &mut i16,
        tables: &BlockTables,
    ) -> Result<(), Error> {
        bits.fill();
        let size = tables.dc.symbol(bits)?;
        if size > MAX_MEAN_SIZE {
            return Err(bad("coefficient"));
        }
        *mean += value(bits, size);
        if !MEANS.contains(mean) {
            return Err(bad("coefficient"));
        }
        let start = self.codes.len() as u32;
        let mut room = room_from(1);
        while room > 0 {
            bits.fill();
            let step = tables.steps.others[bits.peek(LOOK) as usize];
            let (count, after) = if step.room() <= room {
                (step.number() % 64, if step.ends(room) { 0 } else { room - step.room() })
            } else {
                let (count, after) = tables.code(*bits, next_in(room))?;
                (count, room_from(after))
            };
            self.codes.push(Codes { bits: bits.take(count), count });
            room = after;
        }
        let codes = start..self.codes.len() as u32;
        self.blocks[y * self.width + x] = Some(Block { mean: *mean, codes });
        Ok(())
    }
}

/// The means of blocks with samples of 8 bits, of which no two differ by more than [`MAX_MEAN_SIZE`] bits.
const MEANS: Range<i16> = -1024..1024;

/// A value of `size` bits: the ones whose first bit is 0 are negative.
fn value(bits: &mut Bits, size: u8) -> i16 {
    let read = bits.take(size.into()) as i32;
    let negative = size > 0 && read >> (size - 1) == 0;
    (if negative { read - (1 << size) + 1 } else { read }) as i16
}
