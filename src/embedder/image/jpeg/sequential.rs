//! The blocks of a sequential JPEG: all 64 coefficients of a block, one after the other.

use std::hint::select_unpredictable;
use std::ops::Range;
use std::rc::Rc;

use super::bits::Bits;
use super::frame::{BLOCK, Frame};
use super::huffman::{END_OF_BLOCK, LOOK, Table, Tables, ZEROS};
use super::pick::Pick;
use super::refusal::bad;
use super::scan::{Blocks, Scan};
use super::several::Several;
use super::steps::{AT_ONCE, BLOCK_ROOM, Step, Steps, next_in, room_from};
use crate::error::Error;

/// The tables of the blocks of a scan.
pub(super) struct ScanTables {
    tables: Vec<BlockTables>,
    /// For each block of a unit the place of its tables.
    unit: Vec<usize>,
}

/// The tables of a block.
pub(super) struct BlockTables {
    pub(super) dc: Rc<Table>,
    pub(super) ac: Rc<Table>,
    pub(super) steps: Steps,
    /// The most bits of a coefficient other than the first.
    max_size: u8,
}

impl ScanTables {
    /// The tables of a scan, of which no coefficient but the first has more bits than `max_size`.
    pub(super) fn new(
        scan: &Scan,
        frame: &Frame,
        tables: &Tables,
        max_size: u8,
    ) -> Result<ScanTables, Error> {
        let mut all = ScanTables { tables: Vec::new(), unit: Vec::new() };
        for part in scan.unit(frame) {
            let (dc, ac) = (tables.dc(scan.parts[part].dc)?, tables.ac(scan.parts[part].ac)?);
            let same = |known: &BlockTables| Rc::ptr_eq(&known.dc, dc) && Rc::ptr_eq(&known.ac, ac);
            let known = all.tables.iter().position(same);
            all.unit.push(known.unwrap_or(all.tables.len()));
            if known.is_none() {
                let steps = Steps::new(dc, ac, max_size);
                all.tables.push(BlockTables { dc: dc.clone(), ac: ac.clone(), steps, max_size });
            }
        }
        Ok(all)
    }

    /// The ones of a block, counted from the first one of a unit on.
    pub(super) fn of(&self, at: usize) -> &BlockTables {
        &self.tables[self.unit[at % self.unit.len()]]
    }
}

/// Passes over the blocks of a scan, several coefficients in one step: a block costs a fraction of its decoding.
pub(super) struct Passed<'t> {
    tables: &'t ScanTables,
    /// For each block of a round the steps of its other coefficients, and of the first one of the block behind it.
    round: [(&'t Several<Step>, &'t Several<Step>); ROUND],
}

/// The most blocks of a round, which has whole units.
const ROUND: usize = 64;

impl<'t> Passed<'t> {
    pub(super) fn new(tables: &'t ScanTables) -> Passed<'t> {
        let steps = |at| (&*tables.of(at).steps.others, &*tables.of(at + 1).steps.first);
        Passed { tables, round: std::array::from_fn(steps) }
    }
}

impl Blocks for Passed<'_> {
    // The end of a block decides which value is chosen, and never which branch is taken: a processor could not
    // foresee that.
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
                        local.fill();
                        let (count, after) = self.tables.of(at).code(local, next_in(room))?;
                        local.skip(count);
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

impl BlockTables {
    /// The length of the next code and its value, which are in the buffer, and the coefficient that comes next
    /// behind them, [`BLOCK`] behind the last one.
    #[cold]
    pub(super) fn code(&self, bits: Bits, at: u8) -> Result<(u32, u8), Error> {
        if at == 0 {
            let (size, length) = self.dc.code(bits)?;
            return Ok((length + u32::from(size), 1));
        }
        let (symbol, length) = self.ac.code(bits)?;
        let (zeros, size) = (symbol >> 4, symbol & 15);
        let after = at + zeros + 1;
        match symbol {
            END_OF_BLOCK => Ok((length, BLOCK)),
            _ if size > self.max_size => Err(bad("coefficient")),
            _ if after <= BLOCK && (size > 0 || symbol == ZEROS) => Ok((length + u32::from(size), after)),
            _ => Err(bits.no_code()),
        }
    }
}
