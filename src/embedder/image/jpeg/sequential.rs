//! The blocks of a sequential JPEG: all 64 coefficients of a block, one after the other.

use std::hint::select_unpredictable;
use std::ops::Range;

use super::bits::Bits;
use super::huffman::{END_OF_BLOCK, LOOK, Table, ZEROS};
use super::pick::Pick;
use super::scan::Blocks;
use super::several::Several;
use super::steps::{AT_ONCE, BLOCK_ROOM, Step, Steps, next_in, room_from};
use crate::error::Error;

/// The tables of the blocks of a scan.
pub(super) struct ScanTables<'a> {
    tables: Vec<BlockTables<'a>>,
    /// For each block of a unit the place of its tables.
    unit: Vec<usize>,
}

/// The tables of a block.
struct BlockTables<'a> {
    dc: &'a Table,
    ac: &'a Table,
    steps: Steps,
}

impl<'a> ScanTables<'a> {
    /// `unit` are the tables of each block of a unit: the first coefficient's, and the others'.
    pub(super) fn new(unit: impl IntoIterator<Item = (&'a Table, &'a Table)>) -> ScanTables<'a> {
        let mut all = ScanTables { tables: Vec::new(), unit: Vec::new() };
        for (dc, ac) in unit {
            let same = |known: &BlockTables| std::ptr::eq(known.dc, dc) && std::ptr::eq(known.ac, ac);
            let known = all.tables.iter().position(same);
            all.unit.push(known.unwrap_or(all.tables.len()));
            if known.is_none() {
                all.tables.push(BlockTables { dc, ac, steps: Steps::new(dc, ac) });
            }
        }
        all
    }

    /// The ones of a block, counted from the first one of a unit on.
    fn of(&self, at: usize) -> &BlockTables<'a> {
        &self.tables[self.unit[at % self.unit.len()]]
    }
}

/// Passes over the blocks of a scan, several coefficients in one step: a block costs a fraction of its decoding.
pub(super) struct Passed<'t> {
    tables: &'t ScanTables<'t>,
    /// For each block of a round the steps of its other coefficients, and of the first one of the block behind it.
    round: [(&'t Several<Step>, &'t Several<Step>); ROUND],
}

/// The most blocks of a round, which has whole units.
const ROUND: usize = 64;

impl<'t> Passed<'t> {
    pub(super) fn new(tables: &'t ScanTables<'t>) -> Passed<'t> {
        let steps = |at| (&*tables.of(at).steps.others, &*tables.of(at + 1).steps.first);
        Passed { tables, round: std::array::from_fn(steps) }
    }
}

impl Blocks for Passed<'_> {
    // Where a block ends decides what is chosen, and never which way is taken: a processor could not foresee that.
    #[inline(always)]
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        let unit = self.tables.unit.len();
        let mut local = *bits;
        let mut steps = &*self.tables.of(0).steps.first;
        let mut left = units.len() * unit;
        while left > 0 {
            let end = left.min(ROUND / unit * unit);
            left -= end;
            let (mut at, mut room) = (0, BLOCK_ROOM);
            while at < end {
                local.fill();
                for _ in 0..AT_ONCE {
                    let (others, next) = self.round[at % ROUND];
                    let step = steps[local.peek(LOOK) as usize];
                    if step.room() > room {
                        let after;
                        (local, after) = self.tables.of(at).one(local, next_in(room))?;
                        let ended = after == BLOCK;
                        steps = if ended { next } else { others };
                        room = if ended { BLOCK_ROOM } else { room_from(after) };
                        at += usize::from(ended);
                        break;
                    }
                    let ended = step.ends(room);
                    local.skip(step.number());
                    steps = select_unpredictable(ended, next, others);
                    room = select_unpredictable(ended, BLOCK_ROOM, room - step.room());
                    at += usize::from(ended);
                    if at == end {
                        break;
                    }
                }
            }
        }
        *bits = local;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl BlockTables<'_> {
    /// Passes over one code and its value. Returns the coefficient that comes next, [`BLOCK`] behind the last one.
    #[cold]
    fn one<'b>(&self, mut bits: Bits<'b>, at: u8) -> Result<(Bits<'b>, u8), Error> {
        bits.fill();
        if at == 0 {
            let size = self.dc.symbol(&mut bits)?;
            bits.skip(size.into());
            return Ok((bits, 1));
        }
        let after = match Coefficient::read(self.ac, &mut bits, at)? {
            Coefficient::None => BLOCK,
            Coefficient::Zeros { after } => after,
            Coefficient::Value { at, size } => {
                bits.skip(size.into());
                at + 1
            }
        };
        Ok((bits, after))
    }
}

/// The coefficients of a block.
pub(super) const BLOCK: u8 = 64;

/// What a code of a sequential scan says. The bits of a value are still to be read.
pub(super) enum Coefficient {
    /// The rest of the block is zeros.
    None,
    Zeros {
        after: u8,
    },
    Value {
        at: u8,
        size: u8,
    },
}

impl Coefficient {
    /// Reads the code of the coefficients from `next` on.
    pub(super) fn read(ac: &Table, bits: &mut Bits, next: u8) -> Result<Coefficient, Error> {
        let symbol = ac.symbol(bits)?;
        let at = next + (symbol >> 4);
        match symbol {
            END_OF_BLOCK => Ok(Coefficient::None),
            ZEROS if at < BLOCK => Ok(Coefficient::Zeros { after: at + 1 }),
            _ if symbol & 15 > 0 && at < BLOCK => Ok(Coefficient::Value { at, size: symbol & 15 }),
            _ => Err(bits.no_code()),
        }
    }
}
