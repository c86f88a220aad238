//! A scan: which components it has, and the walk over their blocks.
//!
//! A scan of one component has that component's own blocks, row by row. A scan of several has them by units, and restart
//! markers stand between units, or between blocks where there is one component. Source: ITU-T T.81, annexes A and E.

use std::ops::Range;

use super::bits::{Bits, Zeros};
use super::frame::Frame;
use super::marker::{RESTART_0, next_marker};
#[cfg(target_arch = "x86_64")]
use super::pick::AtOnce;
use super::pick::{Pick, Stepwise};
use super::refusal::{bad, broken};
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Scan {
    pub(super) parts: Vec<Part>,
    /// The first and the last coefficient, in the order of the file.
    pub(super) first: u8,
    pub(super) last: u8,
    /// The bits below the ones that earlier scans had, and below the ones that this scan has.
    pub(super) high: u8,
    pub(super) low: u8,
}

/// A component of a scan: its place in the frame, and the numbers of its tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) component: usize,
    pub(super) dc: u8,
    pub(super) ac: u8,
}

impl Scan {
    pub(super) fn read(segment: &[u8], frame: &Frame) -> Result<Scan, Error> {
        let [_, _, count, ref rest @ ..] = *segment else { return Err(bad("scan header")) };
        let (named, rest) =
            rest.split_at_checked(2 * usize::from(count)).ok_or_else(|| bad("scan header"))?;
        let [first, last, bits] = *rest else { return Err(bad("scan header")) };
        let mut parts: Vec<Part> = Vec::new();
        for [id, tables] in named.as_chunks::<2>().0 {
            let component = frame.components.iter().position(|component| component.id == *id);
            let component = component.ok_or_else(|| bad("scan header"))?;
            if parts.iter().any(|part| part.component == component) {
                return Err(bad("scan header"));
            }
            parts.push(Part { component, dc: tables >> 4, ac: tables & 15 });
        }
        let units: u32 = parts.iter().map(|part| frame.components[part.component].unit()).sum();
        if parts.is_empty() || parts.len() > 1 && units > MAX_UNIT {
            return Err(bad("scan header"));
        }
        Ok(Scan { parts, first, last, high: bits >> 4, low: bits & 15 })
    }

    /// The units across and down: the blocks of a component, or units of several.
    pub(super) fn units(&self, frame: &Frame) -> (u32, u32) {
        match *self.parts.as_slice() {
            [part] => frame.components[part.component].alone,
            _ => frame.units,
        }
    }

    /// The part of each block of a unit.
    pub(super) fn unit(&self, frame: &Frame) -> impl Iterator<Item = usize> {
        let single = self.parts.len() == 1;
        let blocks = self
            .parts
            .iter()
            .map(move |part| if single { 1 } else { frame.components[part.component].unit() });
        (0..).zip(blocks).flat_map(|(number, blocks)| std::iter::repeat_n(number, blocks as usize))
    }
}

/// The most blocks of a unit that has several components.
const MAX_UNIT: u32 = 10;

/// The work on the blocks of a scan.
pub(super) trait Blocks {
    /// Reads the blocks of some units, which are counted row by row.
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: Range<usize>) -> Result<(), Error>;

    /// Forgets the state that earlier blocks left for later ones.
    fn restart(&mut self) -> Result<(), Error>;
}

/// Walks over the blocks of a scan, of which every one has to be in `data`. Returns the rest behind the scan.
pub(super) fn walk<'a>(
    data: &'a [u8],
    frame: &Frame,
    scan: &Scan,
    restart_interval: u32,
    blocks: &mut impl Blocks,
) -> Result<&'a [u8], Error> {
    let (across, down) = scan.units(frame);
    let mut walk = Walk::new(data, restart_interval);
    walk.pass(across as usize * down as usize, blocks)?;
    walk.finish(blocks)
}

/// A walk that can be halted between units.
pub(super) struct Walk<'a> {
    bits: Bits<'a>,
    next: usize,
    restart_interval: usize,
    /// The unit before which there is a restart marker, and which marker that is.
    restart: usize,
    marker: u8,
}

impl<'a> Walk<'a> {
    pub(super) fn new(data: &'a [u8], restart_interval: u32) -> Walk<'a> {
        let restart_interval = if restart_interval == 0 { usize::MAX } else { restart_interval as usize };
        Walk {
            bits: Bits::new(data),
            next: 0,
            restart_interval,
            restart: restart_interval,
            marker: RESTART_0,
        }
    }

    /// Passes over the units before `end`.
    pub(super) fn pass(&mut self, end: usize, blocks: &mut impl Blocks) -> Result<(), Error> {
        while self.next < end {
            if self.next == self.restart {
                blocks.restart()?;
                self.bits = Bits::new(after_restart(self.bits.finish(Zeros::Refused)?, self.marker)?);
                self.marker = RESTART_0 + (self.marker - RESTART_0 + 1) % 8;
                self.restart += self.restart_interval;
            }
            let units = self.next..end.min(self.restart).min(self.next + STRETCH);
            self.next = units.end;
            read(blocks, &mut self.bits, units)?;
            self.bits.check_read()?;
        }
        Ok(())
    }

    /// Returns the rest behind the scan.
    pub(super) fn finish(self, blocks: &mut impl Blocks) -> Result<&'a [u8], Error> {
        blocks.restart()?;
        self.bits.finish(Zeros::Passed)
    }
}

/// The most units that are read before it is looked whether they were there.
const STRETCH: usize = 1024;

/// The rest behind a restart marker, which has to be this one.
fn after_restart(data: &[u8], marker: u8) -> Result<&[u8], Error> {
    let (found, rest) = next_marker(data).ok_or_else(|| broken("it ends early"))?;
    if found != marker {
        return Err(broken("a restart marker is missing or out of order"));
    }
    Ok(rest)
}

/// Reads units, with the instructions for single bits where the processor has them.
#[cfg(target_arch = "x86_64")]
fn read(blocks: &mut impl Blocks, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
    #[target_feature(enable = "bmi1,bmi2,lzcnt,popcnt")]
    fn quickly<P: Pick>(blocks: &mut impl Blocks, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
        blocks.units::<P>(bits, units)
    }
    let bmi = is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2");
    if !bmi || !is_x86_feature_detected!("lzcnt") || !is_x86_feature_detected!("popcnt") {
        return blocks.units::<Stepwise>(bits, units);
    }
    // The instruction that picks a bit takes a hundred cycles on AMD's first ones with BMI2, which lack VAES.
    if is_x86_feature_detected!("vaes") {
        // SAFETY: the processor has these instructions, as was just found.
        unsafe { quickly::<AtOnce>(blocks, bits, units) }
    } else {
        // SAFETY: as above.
        unsafe { quickly::<Stepwise>(blocks, bits, units) }
    }
}

/// Reads units.
#[cfg(not(target_arch = "x86_64"))]
fn read(blocks: &mut impl Blocks, bits: &mut Bits, units: Range<usize>) -> Result<(), Error> {
    blocks.units::<Stepwise>(bits, units)
}
