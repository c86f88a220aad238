//! Still pictures of HEIF: HEIC, as phones write it, and AVIF.
//!
//! The container says how large a picture is, of which tiles it is put together, and how it is turned; the data of
//! a tile is a frame of HEVC or AV1. All sizes are held against each other before a frame is decoded, a frame may
//! have no more pixels than its tile says, and there is one frame in memory at a time. Alpha channels, depth maps
//! and thumbnails are items of their own, which are not decoded. Source: ISO/IEC 23008-12 and the AV1 Image File
//! Format.

mod av1;
mod container;
mod hevc;
mod refusal;
mod ycbcr;

use image::RgbImage;
use image::metadata::Orientation;

use self::container::{Coding, Picture};
use self::refusal::{broken, unsupported};
use self::ycbcr::Frame;
use super::format::Format;
use super::memory;
use crate::error::Error;

/// Refuses a file of a size that `admit` refuses, that is broken or of a kind that is not decoded. Returns the memory that
/// its decoding takes, in bytes.
pub(super) fn check(
    format: Format,
    bytes: &[u8],
    admit: impl Fn(u32, u32) -> Result<(), Error>,
) -> Result<u64, Error> {
    let file = container::parse(format, bytes)?;
    let picture = Picture::of(format, &file, &admit)?;
    // The data of a tile is copied a few times, without the bytes that its coding adds and with them.
    let [canvas, tile] =
        [picture.size, picture.tile].map(|(width, height)| u64::from(width) * u64::from(height));
    Ok(memory::heif(canvas, picture.crop.is_some()) + picture.tile_memory(tile) + 8 * bytes.len() as u64)
}

/// Decodes a file that was checked, and says how its picture is turned.
pub(super) fn decode(format: Format, bytes: &[u8]) -> Result<(RgbImage, Orientation), Error> {
    let file = container::parse(format, bytes)?;
    let picture = Picture::of(format, &file, &|_, _| Ok(()))?;
    let mut canvas = RgbImage::new(picture.size.0, picture.size.1);
    for (number, item) in (0..).zip(&picture.tiles) {
        let place = (number % picture.columns * picture.tile.0, number / picture.columns * picture.tile.1);
        match picture.coding {
            Coding::Hevc => {
                let stream = file.hevc_bitstream(*item).map_err(|error| broken(format, error))?;
                let frame = hevc::decode(&stream, picture.tile, picture.chroma)?;
                draw(format, &frame, &picture, place, &mut canvas)?;
            }
            Coding::Av1 => {
                let data = file.item_data(*item).map_err(|error| broken(format, error))?;
                draw(format, &av1::decode(&data, picture.tile)?, &picture, place, &mut canvas)?;
            }
        }
    }
    if let Some((left, top, width, height)) = picture.crop {
        canvas = image::imageops::crop_imm(&canvas, left, top, width, height).to_image();
    }
    Ok((canvas, picture.orientation))
}

/// Draws a frame, of which as much counts as its tile has and the canvas takes.
fn draw(
    format: Format,
    frame: &impl Frame,
    picture: &Picture,
    place: (u32, u32),
    canvas: &mut RgbImage,
) -> Result<(), Error> {
    let (width, height) = frame.size();
    if width < picture.tile.0 || height < picture.tile.1 {
        return Err(broken(format, "a frame is smaller than its header says"));
    }
    let colours = picture.colours.unwrap_or_else(|| frame.colours());
    let unknown = || unsupported(format, "its colours are coded in a way that is not known");
    let coefficients = colours.coefficients().ok_or_else(unknown)?;
    ycbcr::draw(frame, picture.tile, coefficients, place, canvas);
    Ok(())
}
