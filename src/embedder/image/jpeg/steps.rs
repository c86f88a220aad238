//! The codes of blocks of a sequential JPEG, several in one step. Only their lengths count.

use super::bits::FILLED;
use super::frame::BLOCK;
use super::huffman::{END_OF_BLOCK, Table, ZEROS};
use super::several::{Codes, Levels, Several, first};

/// The steps of blocks with two tables.
pub(super) struct Steps {
    /// From coefficient 0 on.
    pub(super) first: Box<Several<Step>>,
    /// From any other on.
    pub(super) others: Box<Several<Step>>,
}

impl Steps {
    pub(super) fn new(dc: &Table, ac: &Table, max_size: u8) -> Steps {
        let means = first(dc, |places, size, length| places.fill((length, Step::new(length + size, 1))));
        let others = first(ac, |places, symbol, length| {
            let (zeros, size) = (symbol >> 4, symbol & 15);
            if symbol == END_OF_BLOCK {
                places.fill((length, Step::end(length)));
            } else if size <= max_size && (size > 0 || symbol == ZEROS) {
                places.fill((length, Step::new(length + size, zeros + 1)));
            }
        });
        let levels = Levels::new(&others);
        Steps { first: levels.behind(&means), others: levels.several() }
    }
}

/// Codes, one after the other, as a number: from the lowest bit on 6 bits for the length of codes and values, 8 for the
/// coefficients that a block must have left for them, and one for whether they end the block.
#[derive(Clone, Copy)]
pub(super) struct Step(u16);

/// How many steps there are to read after [`Bits::fill`](super::bits::Bits::fill).
pub(super) const AT_ONCE: u32 = 3;
const MAX_BITS: u8 = (FILLED / AT_ONCE) as u8;

const BITS: u16 = (1 << 6) - 1;
const COEFFICIENT: u16 = 1 << 6;
const ROOM: u16 = 255 * COEFFICIENT;
const ENDS: u16 = 1 << 14;

/// The room of a whole block, as [`Step::room`] counts.
pub(super) const BLOCK_ROOM: u32 = BLOCK as u32 * COEFFICIENT as u32;

/// The room of a block from the coefficient `at` on.
pub(super) fn room_from(at: u8) -> u32 {
    u32::from(BLOCK - at) * u32::from(COEFFICIENT)
}

/// The next coefficient of a block with this room left.
pub(super) fn next_in(room: u32) -> u8 {
    BLOCK - (room / u32::from(COEFFICIENT)) as u8
}

impl Step {
    fn new(bits: u8, coefficients: u8) -> Step {
        if bits > MAX_BITS {
            Step::NONE
        } else {
            Step(u16::from(bits) + u16::from(coefficients) * COEFFICIENT)
        }
    }

    /// The end of a block, which is left out behind its last coefficient.
    fn end(bits: u8) -> Step {
        Step(u16::from(bits) | COEFFICIENT | ENDS)
    }

    /// As a number, whose lowest 6 bits say how many bits to skip.
    #[inline(always)]
    pub(super) fn number(self) -> u32 {
        self.0.into()
    }

    /// The room that a block must have left for these codes, as a multiple of a coefficient's.
    #[inline(always)]
    pub(super) fn room(self) -> u32 {
        (self.0 & ROOM).into()
    }

    /// Whether a block ends with these codes that has enough left for them.
    #[inline(always)]
    pub(super) fn ends(self, room: u32) -> bool {
        u32::from(self.0) >= room
    }
}

impl Codes for Step {
    /// Needs more room than a block has.
    const NONE: Step = Step(128 * COEFFICIENT);

    fn bits(self) -> u32 {
        (self.0 & BITS).into()
    }

    #[inline(always)]
    fn and(self, behind: Step) -> Step {
        let fits = (self.0 & BITS) + (behind.0 & BITS) <= MAX_BITS.into();
        let room = (self.0 & ROOM) + (behind.0 & ROOM);
        if fits && self.0 & ENDS == 0 && room <= BLOCK_ROOM as u16 { Step(self.0 + behind.0) } else { self }
    }
}
