//! Huffman codes.

use std::ops::Range;
use std::rc::Rc;

use super::bits::Bits;
use super::marker::HUFFMAN_TABLES;
use super::refusal::bad;
use super::written::write_segment;
use crate::error::Error;

/// The bits that a table looks at in one step. Nearly all codes are shorter.
pub(super) const LOOK: u32 = 11;

/// A table of codes. Source: ITU-T T.81, annex C.
pub(super) struct Table {
    /// By the next bits: a symbol and the length of its code; 0 where the code is longer.
    symbols: Box<[(u8, u8); 1 << LOOK]>,
    /// By its length less one: the first code that is longer, in 16 bits from the left.
    ends: [u32; 16],
    /// By its length less one: the number that turns a code into the place of its symbol.
    places: [i32; 16],
    /// How many codes there are of each length.
    pub(super) counts: [u8; 16],
    /// Their symbols.
    pub(super) values: Vec<u8>,
}

/// The rest of the block is zeros.
pub(super) const END_OF_BLOCK: u8 = 0x00;
/// Sixteen zeros.
pub(super) const ZEROS: u8 = 0xf0;

impl Table {
    /// A table of `counts` codes of each length, from 1 bit on, for the symbols `values`.
    pub(super) fn new(counts: &[u8; 16], values: &[u8], class: Class) -> Result<Table, Error> {
        if class == Class::Dc && values.iter().any(|size| *size > 15) {
            return Err(bad("Huffman table"));
        }
        let mut symbols = Box::new([(0, 0); 1 << LOOK]);
        let (mut ends, mut places) = ([0; 16], [0; 16]);
        let (mut code, mut place) = (0_u32, 0_usize);
        for (less_one, count) in counts.iter().enumerate() {
            let length = less_one as u32 + 1;
            places[less_one] = place as i32 - code as i32;
            for symbol in
                values.get(place..place + usize::from(*count)).ok_or_else(|| bad("Huffman table"))?
            {
                if code >= 1 << length {
                    return Err(bad("Huffman table"));
                }
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    symbols[first..first + (1 << (LOOK - length))].fill((*symbol, length as u8));
                }
                code += 1;
                place += 1;
            }
            ends[less_one] = code << (16 - length);
            code <<= 1;
        }
        Ok(Table { symbols, ends, places, counts: *counts, values: values.to_vec() })
    }

    /// Reads a symbol. There are 16 bits to read.
    #[inline(always)]
    pub(super) fn symbol(&self, bits: &mut Bits) -> Result<u8, Error> {
        let (symbol, length) = self.code(*bits)?;
        bits.skip(length);
        Ok(symbol)
    }

    /// The symbol that comes next, and the length of its code. There are 16 bits to read.
    #[inline(always)]
    pub(super) fn code(&self, bits: Bits) -> Result<(u8, u32), Error> {
        let (symbol, length) = self.symbols[bits.peek(LOOK) as usize];
        if length > 0 {
            return Ok((symbol, length.into()));
        }
        self.long_code(bits.peek(16)).ok_or_else(|| bits.no_code())
    }

    /// Gives out the codes that are no longer than [`LOOK`]: the symbol, the length, and the places of all bits that begin
    /// with the code.
    pub(super) fn codes(&self, mut take: impl FnMut(u8, u8, Range<usize>)) {
        let mut at = 0;
        while let Some((symbol, length)) = self.symbols.get(at).filter(|(_, length)| *length > 0) {
            let end = at + (1 << (LOOK - u32::from(*length)));
            take(*symbol, *length, at..end);
            at = end;
        }
    }

    #[cold]
    fn long_code(&self, next: u32) -> Option<(u8, u32)> {
        let at = self.ends.iter().position(|end| next < *end)?;
        let place = (next >> (15 - at)) as i32 + self.places[at];
        let symbol = *self.values.get(usize::try_from(place).ok()?)?;
        Some((symbol, at as u32 + 1))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Dc,
    Ac,
}

/// The tables of a decoder. At first they are the usual ones of annex K, which frames of Motion JPEG leave out.
pub(super) struct Tables {
    dc: [Option<Rc<Table>>; 4],
    ac: [Option<Rc<Table>>; 4],
}

impl Tables {
    pub(super) fn usual() -> Tables {
        let table =
            |(counts, values): &(_, &[u8]), class| Table::new(counts, values, class).ok().map(Rc::new);
        Tables {
            dc: [table(&USUAL_DC[0], Class::Dc), table(&USUAL_DC[1], Class::Dc), None, None],
            ac: [table(&USUAL_AC[0], Class::Ac), table(&USUAL_AC[1], Class::Ac), None, None],
        }
    }

    /// Takes up the tables of a segment.
    pub(super) fn define(&mut self, segment: &[u8]) -> Result<(), Error> {
        let mut rest = segment.get(2..).unwrap_or_default();
        while let Some((place, after)) = rest.split_first() {
            let (counts, after) = after.split_first_chunk().ok_or_else(|| bad("Huffman table"))?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, after) = after.split_at_checked(total).ok_or_else(|| bad("Huffman table"))?;
            let (tables, class) = match place >> 4 {
                0 => (&mut self.dc, Class::Dc),
                1 => (&mut self.ac, Class::Ac),
                _ => return Err(bad("Huffman table")),
            };
            let table = tables.get_mut(usize::from(place & 15)).ok_or_else(|| bad("Huffman table"))?;
            *table = Some(Rc::new(Table::new(counts, values, class)?));
            rest = after;
        }
        Ok(())
    }

    pub(super) fn dc(&self, number: u8) -> Result<&Rc<Table>, Error> {
        find(&self.dc, number)
    }

    pub(super) fn ac(&self, number: u8) -> Result<&Rc<Table>, Error> {
        find(&self.ac, number)
    }
}

/// Writes a segment with the usual tables.
pub(super) fn write_usual(file: &mut Vec<u8>) {
    let mut content = Vec::new();
    for (class, tables) in [(0, &USUAL_DC), (1, &USUAL_AC)] {
        for (number, (counts, values)) in (0..).zip(tables) {
            content.push(class << 4 | number);
            content.extend_from_slice(counts);
            content.extend_from_slice(values);
        }
    }
    write_segment(file, HUFFMAN_TABLES, &content);
}

fn find(tables: &[Option<Rc<Table>>; 4], number: u8) -> Result<&Rc<Table>, Error> {
    tables.get(usize::from(number)).and_then(Option::as_ref).ok_or_else(|| bad("Huffman table's number"))
}

type Definition = ([u8; 16], &'static [u8]);

const USUAL_DC: [Definition; 2] = [
    ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
];

#[rustfmt::skip]
const USUAL_AC: [Definition; 2] = [
    ([0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125], &[
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
        0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
        0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
        0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
        0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
        0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
        0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
        0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
        0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ]),
    ([0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119], &[
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
        0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
        0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
        0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
        0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
        0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
        0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
        0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
        0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ]),
];
