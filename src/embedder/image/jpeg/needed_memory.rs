//! The memory that decoding a JPEG takes, as its frame tells.

use super::super::memory;
use super::frame::{Component, Frame};
use super::interleave::usual_length;
use super::rows::BLOCK_MEMORY;

/// The memory that decoding a file of `length` bytes takes. `several_scans` where the first one lacks a component.
pub(super) fn of(frame: &Frame, length: usize, several_scans: bool) -> u64 {
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    let blocks: usize = frame.components.iter().map(Component::blocks).sum();
    if frame.progressive {
        return memory::progressive_jpeg(pixels, blocks as u64);
    }
    if !several_scans {
        return memory::jpeg(pixels);
    }
    let unit: u32 = frame.components.iter().map(Component::unit).sum();
    let row = frame.units.0 as usize * unit as usize * BLOCK_MEMORY;
    memory::jpeg_in_scans(pixels, usual_length(length, blocks) as u64, row as u64)
}
