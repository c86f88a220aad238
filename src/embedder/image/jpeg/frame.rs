//! A frame: the size of a picture, its components, and the blocks of 8 × 8 samples that each of them has.

use super::marker::{FRAME_0, FRAME_1};
use super::refusal::{bad, broken};
use crate::error::Error;

const FRAME_2: u8 = 0xc2;

/// The coefficients of a block.
pub(super) const BLOCK: u8 = 64;

pub(super) struct Frame {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) progressive: bool,
    /// Whether it is an extended sequential one, which is decoded as a baseline one.
    pub(super) extended: bool,
    pub(super) components: Vec<Component>,
    /// Units of all components, interleaved, in a row and in a column.
    pub(super) units: (u32, u32),
}

/// A component, as luma is one. Its blocks are counted in two ways: a scan of this component alone has the blocks
/// with samples of the picture, and a scan of several components has the blocks of whole units.
pub(super) struct Component {
    pub(super) id: u8,
    /// Its blocks in a unit, across and down.
    pub(super) factors: (u32, u32),
    pub(super) quantization: u8,
    /// Blocks with samples of the picture, across and down.
    pub(super) alone: (u32, u32),
    /// Blocks of whole units, across and down.
    pub(super) padded: (u32, u32),
}

impl Component {
    pub(super) fn blocks(&self) -> usize {
        self.padded.0 as usize * self.padded.1 as usize
    }

    /// Its blocks in a unit.
    pub(super) fn unit(&self) -> u32 {
        self.factors.0 * self.factors.1
    }
}

impl Frame {
    pub(super) fn read(marker: u8, segment: &[u8]) -> Result<Frame, Error> {
        let [_, _, precision, height_high, height_low, width_high, width_low, count, ref components @ ..] =
            *segment
        else {
            return Err(broken("its frame header is incomplete"));
        };
        let format = match marker {
            _ if precision != 8 => "12-bit JPEG",
            FRAME_0 | FRAME_1 | FRAME_2 => {
                let [width, height] = [[width_high, width_low], [height_high, height_low]]
                    .map(|side| u32::from(u16::from_be_bytes(side)));
                let (components, rest) = components.as_chunks::<3>();
                if !(1..=4).contains(&count) || components.len() != usize::from(count) || !rest.is_empty() {
                    return Err(bad("frame header"));
                }
                let frame = Frame::new(marker == FRAME_2, width, height, components)?;
                return Ok(Frame { extended: marker == FRAME_1, ..frame });
            }
            0xc3 | 0xc7 | 0xcb | 0xcf => "lossless JPEG",
            0xc5 | 0xc6 => "hierarchical JPEG",
            _ => "arithmetic-coded JPEG",
        };
        Err(Error::UnsupportedFormat { format })
    }

    fn new(progressive: bool, width: u32, height: u32, components: &[[u8; 3]]) -> Result<Frame, Error> {
        let factors = |packed: u8| (u32::from(packed >> 4), u32::from(packed & 15));
        let valid = |factor| (1..=4).contains(&factor);
        let mut largest = (1, 1);
        for [_, packed, quantization] in components {
            let (across, down) = factors(*packed);
            if !valid(across) || !valid(down) || *quantization > 3 {
                return Err(bad("frame header"));
            }
            largest = (largest.0.max(across), largest.1.max(down));
        }
        if !decodes(&components.iter().map(|[_, packed, _]| factors(*packed)).collect::<Vec<_>>(), largest) {
            let reason = "its components have sampling factors that the decoder does not know".to_owned();
            return Err(Error::UnsupportedFeature { format: "JPEG", reason });
        }
        let units = (width.div_ceil(8 * largest.0), height.div_ceil(8 * largest.1));
        let components = components.iter().map(|[id, packed, quantization]| {
            let (across, down) = factors(*packed);
            Component {
                id: *id,
                factors: (across, down),
                quantization: *quantization,
                alone: ((width * across).div_ceil(8 * largest.0), (height * down).div_ceil(8 * largest.1)),
                padded: (units.0 * across, units.1 * down),
            }
        });
        Ok(Frame { width, height, progressive, extended: false, components: components.collect(), units })
    }
}

/// Whether the decoder makes the right picture of components with these factors. All of these were tried: they
/// include the factors that encoders write by themselves.
fn decodes(factors: &[(u32, u32)], largest: (u32, u32)) -> bool {
    let [first, .., _] = *factors else { return true };
    let known = |(across, down): &(u32, u32)| *across != 3 && (largest.1 < 4 || *down != 2);
    first.0 == largest.0 && (first.1 == largest.1 || first.0 < 4) && factors.iter().all(known)
}
