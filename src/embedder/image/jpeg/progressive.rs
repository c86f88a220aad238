//! The blocks of a progressive JPEG, whose coefficients come band by band and bit by bit.
//!
//! How many bits a later scan has for a block depends on which of its coefficients are not zero after the earlier ones:
//! that is kept, a bit for each coefficient. Source: ITU-T T.81, annex G.

use super::bits::Bits;
use super::frame::Frame;
use super::huffman::{Table, Tables, ZEROS};
use super::scan::{Blocks, Scan, walk};
use super::sequential::BLOCK;
use super::{bad, broken};
use crate::error::Error;

/// What the scans of a progressive JPEG have brought so far, for each component.
pub(super) struct Progress {
    /// The lowest bit of each coefficient that came.
    low: Vec<[Option<u8>; BLOCK as usize]>,
    /// For each block the coefficients that are not zero.
    present: Vec<Vec<u64>>,
}

impl Progress {
    pub(super) fn new(frame: &Frame) -> Progress {
        Progress {
            low: vec![[None; BLOCK as usize]; frame.components.len()],
            present: frame.components.iter().map(|component| vec![0; component.blocks()]).collect(),
        }
    }

    /// Walks over a scan and returns what follows it.
    pub(super) fn pass<'a>(
        &mut self,
        data: &'a [u8],
        frame: &Frame,
        scan: &Scan,
        restart_interval: u32,
        tables: &Tables,
    ) -> Result<&'a [u8], Error> {
        self.note(scan)?;
        match (scan.first, scan.high) {
            (0, 0) => {
                let tables = scan.parts.iter().map(|part| tables.dc(part.dc)).collect::<Result<_, _>>()?;
                walk(data, frame, scan, restart_interval, &mut FirstOfMeans { tables })
            }
            (0, _) => walk(data, frame, scan, restart_interval, &mut NextOfMeans),
            (_, high) => {
                let part = scan.parts[0];
                let mut band = Band {
                    table: tables.ac(part.ac)?,
                    first: scan.first,
                    last: scan.last,
                    refines: high > 0,
                    row: frame.components[part.component].padded.0,
                    present: &mut self.present[part.component],
                    empty: 0,
                };
                walk(data, frame, scan, restart_interval, &mut band)
            }
        }
    }

    /// Holds a scan against the earlier ones: it has one band of coefficients, from the highest bit on or the next lower.
    fn note(&mut self, scan: &Scan) -> Result<(), Error> {
        let Scan { first, last, high, low, .. } = *scan;
        let means = first == 0 && last == 0;
        let band = 0 < first && first <= last && last < BLOCK && scan.parts.len() == 1;
        if !(means || band) || low > 13 || high > 0 && low + 1 != high {
            return Err(bad("scan header"));
        }
        for part in &scan.parts {
            let component = &mut self.low[part.component];
            if band && component[0].is_none() {
                return Err(broken("its scans are out of order"));
            }
            for came in &mut component[first.into()..=last.into()] {
                if *came != (high > 0).then_some(high) {
                    return Err(broken("its scans are out of order"));
                }
                *came = Some(low);
            }
        }
        Ok(())
    }

    /// Refuses a picture of which a coefficient, or the lower bits of one, never came.
    pub(super) fn check_whole(&self) -> Result<(), Error> {
        if self.low.as_flattened().iter().any(|low| *low != Some(0)) {
            return Err(broken("it ends before its last scan"));
        }
        Ok(())
    }
}

/// The means of blocks, coefficient 0, from the highest bit on.
struct FirstOfMeans<'a> {
    tables: Vec<&'a Table>,
}

impl Blocks for FirstOfMeans<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits, part: usize, _: u32, _: u32) -> Result<(), Error> {
        bits.fill();
        let size = self.tables[part].symbol(bits)?;
        bits.skip(size.into());
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The next bit of means.
struct NextOfMeans;

impl Blocks for NextOfMeans {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits, _: usize, _: u32, _: u32) -> Result<(), Error> {
        bits.fill();
        bits.skip(1);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The coefficients of one component from `first` to `last`.
struct Band<'a> {
    table: &'a Table,
    first: u8,
    last: u8,
    /// Whether earlier scans had their higher bits.
    refines: bool,
    /// The blocks in a row.
    row: u32,
    present: &'a mut [u64],
    /// How many blocks from here on have nothing new.
    empty: u32,
}

impl Blocks for Band<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits, _: usize, x: u32, y: u32) -> Result<(), Error> {
        let place = y as usize * self.row as usize + x as usize;
        if self.refines { self.next_bits(bits, place) } else { self.first_bits(bits, place) }
    }

    fn restart(&mut self) -> Result<(), Error> {
        if self.empty > 0 {
            return Err(bad("code in its data"));
        }
        Ok(())
    }
}

impl Band<'_> {
    fn first_bits(&mut self, bits: &mut Bits, place: usize) -> Result<(), Error> {
        if self.empty > 0 {
            self.empty -= 1;
            return Ok(());
        }
        let mut next = self.first;
        while next <= self.last {
            bits.fill();
            let (run, values) = self.table.run_and_values(bits);
            let after = next + run.coefficients;
            if run.bits > 0 && after + u8::from(run.ends) <= self.last + 1 {
                bits.skip(run.bits.into());
                self.present[place] |= u64::from(values) << next;
                if run.ends {
                    return Ok(());
                }
                next = after;
                continue;
            }
            let symbol = self.table.symbol(bits)?;
            let (zeros, size) = (symbol >> 4, symbol & 15);
            if size == 0 && symbol != ZEROS {
                self.empty = run_of_blocks(bits, zeros) - 1;
                return Ok(());
            }
            let at = next + zeros;
            if at > self.last {
                return Err(bad("code in its data"));
            }
            if size > 0 {
                bits.skip(size.into());
                self.present[place] |= 1 << at;
            }
            next = at + 1;
        }
        Ok(())
    }

    fn next_bits(&mut self, bits: &mut Bits, place: usize) -> Result<(), Error> {
        let mut present = self.present[place];
        let band = u64::MAX >> (63 - self.last);
        let mut next = self.first;
        while self.empty == 0 && next <= self.last {
            bits.fill();
            let symbol = self.table.symbol(bits)?;
            let (zeros, size) = (symbol >> 4, symbol & 15);
            if size == 0 && symbol != ZEROS {
                self.empty = run_of_blocks(bits, zeros);
                break;
            }
            // The next coefficient that is still zero, behind as many others.
            let mut absent = !present & band & (u64::MAX << next);
            for _ in 0..zeros {
                absent &= absent.wrapping_sub(1);
            }
            if size > 1 || absent == 0 {
                return Err(bad("code in its data"));
            }
            let at = absent.trailing_zeros() as u8;
            // The sign of a new coefficient, and a bit of each that was not zero on the way.
            skip(bits, size + (at - next - zeros));
            present |= u64::from(size) << at;
            next = at + 1;
        }
        if self.empty > 0 {
            let rest = present & band & u64::MAX.checked_shl(next.into()).unwrap_or(0);
            if rest != 0 {
                skip(bits, rest.count_ones() as u8);
            }
            self.empty -= 1;
        }
        self.present[place] = present;
        Ok(())
    }
}

/// How many blocks, this one included, have nothing more.
fn run_of_blocks(bits: &mut Bits, size: u8) -> u32 {
    (1 << size) + bits.take(size.into())
}

/// Skips up to 64 bits.
#[inline(always)]
fn skip(bits: &mut Bits, count: u8) {
    if count <= bits.left() {
        bits.skip(count.into());
    } else {
        skip_beyond(bits, count.into());
    }
}

#[inline(never)]
fn skip_beyond(bits: &mut Bits, count: u32) {
    for part in [count.min(32), count.saturating_sub(32)] {
        bits.fill();
        bits.skip(part);
    }
}
