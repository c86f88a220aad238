//! The blocks of a progressive JPEG, whose coefficients come band by band and bit by bit.
//!
//! How many bits a later scan has for a block depends on which of its coefficients are not zero after the earlier ones:
//! that is kept, a bit for each coefficient. Source: ITU-T T.81, annex G.

use std::ops::Range;
use std::rc::Rc;

use super::bits::Bits;
use super::first_bits::FirstBits;
use super::frame::{BLOCK, Frame};
use super::huffman::{Table, Tables};
use super::next_bits::NextBits;
use super::pick::Pick;
use super::refusal::{bad, broken};
use super::scan::{Blocks, Scan, walk};
use crate::error::Error;

/// The bits that the scans of a progressive JPEG have brought so far, for each component.
pub(super) struct Progress {
    /// The lowest bit of each coefficient that came.
    low: Vec<[Option<u8>; BLOCK as usize]>,
    /// For each block with samples of the picture, and one more, the coefficients that are not zero, but for the mean.
    present: Vec<Vec<u64>>,
}

impl Progress {
    pub(super) fn new(frame: &Frame) -> Progress {
        let blocks = |(across, down): (u32, u32)| across as usize * down as usize;
        Progress {
            low: vec![[None; BLOCK as usize]; frame.components.len()],
            present: frame.components.iter().map(|component| vec![0; blocks(component.alone) + 1]).collect(),
        }
    }

    /// Walks over a scan and returns the rest.
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
                let tables: Vec<&Rc<Table>> =
                    scan.parts.iter().map(|part| tables.dc(part.dc)).collect::<Result<_, _>>()?;
                let unit = scan.unit(frame).map(|part| tables[part].as_ref()).collect();
                walk(data, frame, scan, restart_interval, &mut FirstOfMeans { unit })
            }
            (0, _) => {
                walk(data, frame, scan, restart_interval, &mut NextOfMeans { unit: scan.unit(frame).count() })
            }
            (_, high) => {
                let part = scan.parts[0];
                let table = tables.ac(part.ac)?;
                let present = &mut self.present[part.component];
                if high == 0 {
                    walk(data, frame, scan, restart_interval, &mut FirstBits::new(table, scan, present))
                } else {
                    walk(data, frame, scan, restart_interval, &mut NextBits::new(table, scan, present))
                }
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
    /// The table of each block of a unit.
    unit: Vec<&'a Table>,
}

impl Blocks for FirstOfMeans<'_> {
    #[inline(always)]
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        let mut local = *bits;
        for _ in units {
            for table in &self.unit {
                local.fill();
                let size = table.symbol(&mut local)?;
                local.skip(size.into());
            }
        }
        *bits = local;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The next bit of means.
struct NextOfMeans {
    /// The blocks of a unit.
    unit: usize,
}

impl Blocks for NextOfMeans {
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        bits.skip_many(units.len() * self.unit);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
