//! Tables that read several codes in one step.

use super::huffman::{LOOK, Table};

/// The summary of several codes in a row.
pub(super) trait Codes: Copy {
    /// Not even one code lies whole in the bits that were looked at.
    const NONE: Self;

    /// How long they are, with their values.
    fn bits(self) -> u32;

    /// Adds the codes behind these, where both can be told in one.
    fn and(self, behind: Self) -> Self;
}

/// By the next bits: the summary of the first code, and its number of bits.
pub(super) type First<C> = [(u8, C); 1 << LOOK];

/// By the next bits: the summary of all codes that lie whole in them.
pub(super) type Several<C> = [C; 1 << LOOK];

/// The first codes of a table. `fill` writes the summary of a symbol and the length of its code into the places
/// that begin with the code.
pub(super) fn first<C: Codes>(table: &Table, fill: impl Fn(&mut [(u8, C)], u8, u8)) -> Box<First<C>> {
    let mut all = Box::new([(u8::MAX, C::NONE); 1 << LOOK]);
    table.codes(|symbol, length, places| fill(&mut all[places], symbol, length));
    all
}

/// The summaries of several codes of a table, from those of its first codes.
pub(super) struct Levels<C> {
    /// By the next few bits, with a 1 before them that tells how many there are.
    known: Vec<C>,
}

impl<C: Codes> Levels<C> {
    pub(super) fn new(first: &First<C>) -> Levels<C> {
        let mut levels = Levels { known: vec![C::NONE; 2 << LOOK] };
        for count in 1..=LOOK {
            for bits in 0..1 << count {
                levels.known[1 << count | bits] = levels.after(first, count, bits);
            }
        }
        levels
    }

    pub(super) fn several(&self) -> Box<Several<C>> {
        self.known[1 << LOOK..].to_vec().try_into().ok().expect("the last level has all bits")
    }

    /// The same behind one code of another table.
    pub(super) fn behind(&self, first: &First<C>) -> Box<Several<C>> {
        let all: Vec<C> = (0..1 << LOOK).map(|bits| self.after(first, LOOK, bits)).collect();
        all.try_into().ok().expect("these are all bits")
    }

    /// The summary of the codes in `count` bits.
    #[inline(always)]
    fn after(&self, first: &First<C>, count: u32, bits: usize) -> C {
        let (needed, codes) = first[bits << (LOOK - count) & ((1 << LOOK) - 1)];
        if u32::from(needed) > count {
            return C::NONE;
        }
        let left = count.saturating_sub(codes.bits());
        codes.and(self.known[1 << left | bits & ((1 << left) - 1)])
    }
}
