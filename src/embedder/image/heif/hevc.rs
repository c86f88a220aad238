//! Frames of HEVC.

use heifer_hevc_dec::decoder::{DecodeOptions, decode_picture};
use heifer_hevc_dec::nal::{NalUnit, split_annex_b};
use heifer_hevc_dec::params::ParameterSets;
use heifer_hevc_dec::recon;

use super::super::format::Format;
use super::refusal::{broken, unsupported};
use super::ycbcr::{Colours, Frame};
use crate::error::Error;

/// Decodes the first picture of a stream, which has to bring all of it, with chroma of no finer kind than `chroma`. A frame is
/// coded in whole blocks: it may have up to 64 pixels a side more than its tile, and no more.
pub(super) fn decode(stream: &[u8], (width, height): (u32, u32), chroma: u8) -> Result<recon::Frame, Error> {
    check_chroma(stream, chroma)?;
    let blocks = |side: u32| u64::from(side.next_multiple_of(64));
    let options = DecodeOptions { max_pixels: blocks(width) * blocks(height), ..DecodeOptions::default() };
    let frame = decode_picture(stream, options).map_err(refusal)?;
    if frame.bit_depth[0] != frame.bit_depth[1] && frame.chroma_format > 0 {
        return Err(unsupported(Format::Heic, "luma and chroma have samples of different depths"));
    }
    Ok(frame)
}

/// Refuses a stream that says another kind of chroma than the container does, by which memory was reckoned.
fn check_chroma(stream: &[u8], chroma: u8) -> Result<(), Error> {
    let mut sets = ParameterSets::default();
    for unit in split_annex_b(stream).take_while(|unit| !is_slice(unit)) {
        NalUnit::parse(unit).and_then(|unit| sets.add(&unit)).map_err(refusal)?;
    }
    if sets.sps.iter().flatten().any(|set| set.chroma_format_idc > chroma) {
        return Err(broken(Format::Heic, "its frame has other chroma than its header says"));
    }
    Ok(())
}

/// Whether a unit of a stream is a part of a picture, by its type.
fn is_slice(unit: &[u8]) -> bool {
    unit.first().is_some_and(|byte| byte >> 1 & 0x3f < 32)
}

fn refusal(error: heifer_hevc_dec::Error) -> Error {
    match error {
        heifer_hevc_dec::Error::Unimplemented(what) => {
            unsupported(Format::Heic, &format!("its decoder does not know: {what}"))
        }
        error => broken(Format::Heic, error),
    }
}

impl Frame for recon::Frame {
    const SMOOTH: bool = false;

    fn size(&self) -> (u32, u32) {
        (self.widths[0], self.heights[0])
    }

    fn bits(&self) -> u32 {
        self.bit_depth[0].into()
    }

    fn chroma(&self) -> Option<(u32, u32)> {
        match self.chroma_format {
            0 => None,
            1 => Some((1, 1)),
            2 => Some((1, 0)),
            _ => Some((0, 0)),
        }
    }

    fn colours(&self) -> Colours {
        Colours { matrix: self.matrix_coeffs.into(), full_range: self.full_range }
    }

    fn row(&self, plane: usize, y: u32, into: &mut [u16]) {
        let start = y as usize * self.widths[plane] as usize;
        into.copy_from_slice(&self.planes[plane][start..start + into.len()]);
    }
}
