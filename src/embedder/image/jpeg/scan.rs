//! A scan: which components it has, and the walk over their blocks.
//!
//! A scan of one component has that component's own blocks, row by row. A scan of several has them by units, and restart
//! markers stand between units, or between blocks where there is one component. Source: ITU-T T.81, annexes A and E.

use super::bits::{Bits, Zeros};
use super::frame::Frame;
use super::{RESTART_0, bad, broken, next_marker};
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
}

/// The most blocks of a unit that has several components.
const MAX_UNIT: u32 = 10;

/// What is done with each block of a scan.
pub(super) trait Blocks {
    /// Reads the block of a part that is `x` across and `y` down.
    fn block(&mut self, bits: &mut Bits, part: usize, x: u32, y: u32) -> Result<(), Error>;

    /// Forgets what earlier blocks said about later ones.
    fn restart(&mut self) -> Result<(), Error>;
}

/// Walks over the blocks of a scan, of which every one has to be in `data`. Returns what follows the scan.
pub(super) fn walk<'a>(
    data: &'a [u8],
    frame: &Frame,
    scan: &Scan,
    restart_interval: u32,
    blocks: &mut impl Blocks,
) -> Result<&'a [u8], Error> {
    let mut bits = Bits::new(data);
    let mut restarts = Restarts { interval: restart_interval, left: restart_interval, next: 0 };
    match *scan.parts.as_slice() {
        [part] => {
            let (across, down) = frame.components[part.component].alone;
            for y in 0..down {
                for x in 0..across {
                    restarts.pass(&mut bits, blocks)?;
                    blocks.block(&mut bits, 0, x, y)?;
                    bits.check_read()?;
                }
            }
        }
        ref parts => {
            for y in 0..frame.units.1 {
                for x in 0..frame.units.0 {
                    restarts.pass(&mut bits, blocks)?;
                    for (number, part) in parts.iter().enumerate() {
                        let (across, down) = frame.components[part.component].factors;
                        for v in 0..down {
                            for h in 0..across {
                                blocks.block(&mut bits, number, x * across + h, y * down + v)?;
                            }
                        }
                    }
                    bits.check_read()?;
                }
            }
        }
    }
    blocks.restart()?;
    bits.finish(Zeros::Passed)
}

/// The restart markers of a scan, numbered from 0 to 7 and from 0 again.
struct Restarts {
    /// The number of units between two of them; 0 where there are none.
    interval: u32,
    left: u32,
    next: u8,
}

impl Restarts {
    /// Reads the marker that is due before the next unit.
    #[inline(always)]
    fn pass(&mut self, bits: &mut Bits, blocks: &mut impl Blocks) -> Result<(), Error> {
        if self.interval == 0 {
            return Ok(());
        }
        if self.left == 0 {
            self.read(bits)?;
            blocks.restart()?;
        }
        self.left -= 1;
        Ok(())
    }

    fn read(&mut self, bits: &mut Bits) -> Result<(), Error> {
        let rest = std::mem::replace(bits, Bits::new(&[])).finish(Zeros::Refused)?;
        let (marker, rest) = next_marker(rest).ok_or_else(|| broken("it ends early"))?;
        if marker != RESTART_0 + self.next {
            return Err(broken("a restart marker is missing or out of order"));
        }
        *bits = Bits::new(rest);
        self.next = (self.next + 1) % 8;
        self.left = self.interval;
        Ok(())
    }
}
