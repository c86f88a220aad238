//! The blocks of a sequential JPEG: all 64 coefficients of a block, one after the other.

use super::bad;
use super::bits::Bits;
use super::huffman::{END_OF_BLOCK, Table, ZEROS};
use super::scan::Blocks;
use crate::error::Error;

/// Passes over the blocks of a scan. Runs of coefficients are passed in one step: a block costs a fraction of its decoding.
pub(super) struct Passed<'a> {
    /// The tables of each part: the first coefficient's, and the others'.
    pub(super) tables: Vec<(&'a Table, &'a Table)>,
}

impl Blocks for Passed<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits, part: usize, _: u32, _: u32) -> Result<(), Error> {
        let (dc, ac) = self.tables[part];
        bits.fill();
        let size = dc.symbol(bits)?;
        bits.skip(size.into());
        let mut next = 1_u8;
        while next < BLOCK {
            bits.fill();
            let run = ac.run(bits);
            let after = next + run.coefficients;
            if run.bits > 0 && after + u8::from(run.ends) <= BLOCK {
                bits.skip(run.bits.into());
                if run.ends {
                    return Ok(());
                }
                next = after;
            } else {
                match Coefficient::read(ac, bits, next)? {
                    Coefficient::None => return Ok(()),
                    Coefficient::Zeros { after } => next = after,
                    Coefficient::Value { at, size } => {
                        bits.skip(size.into());
                        next = at + 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        Ok(())
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
            _ => Err(bad("code in its data")),
        }
    }
}
