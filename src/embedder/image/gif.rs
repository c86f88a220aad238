//! The first frame of a GIF on its canvas.
//!
//! A frame may cover a part of the canvas only, or lie beside it. As Pillow shows it, the canvas grows with its first frame,
//! and is filled with the transparent colour of that frame, or else with the first one of its palette. Source: GIF89a.

use std::borrow::Cow;

use gif::{ColorOutput, DecodeOptions};
use image::RgbImage;

use super::format::Format;
use super::memory;
use crate::error::Error;

/// Refuses a GIF whose canvas is of a size that `admit` refuses. Returns the memory that its decoding takes, in bytes.
pub(super) fn check(bytes: &[u8], admit: impl Fn(u32, u32) -> Result<(), Error>) -> Result<u64, Error> {
    // A canvas that is too large is refused as such, whatever follows.
    let screen = screen(bytes)?;
    admit(screen.0, screen.1)?;
    let place = first_frame(bytes)?;
    let (width, height) = place.canvas(screen);
    admit(width, height)?;
    let pixels = |width, height| u64::from(width) * u64::from(height);
    let copy = if place.palette { 0 } else { bytes.len() + GREY_PALETTE };
    Ok(memory::gif(pixels(width, height), pixels(place.width, place.height)) + copy as u64)
}

/// Decodes the first frame of a GIF that was checked.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, Error> {
    let bytes = with_palette(bytes, &first_frame(bytes)?);
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    let mut decoder = options.read_info(&*bytes).map_err(refusal)?;
    let frame = decoder.next_frame_info().map_err(refusal)?.ok_or_else(|| broken("it has no picture"))?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let background = frame.transparent.unwrap_or(0);
    let own_palette = frame.palette.clone();
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(refusal)?;

    let palette = own_palette.as_deref().or_else(|| decoder.global_palette()).unwrap_or_default();
    let colours: [_; 256] = std::array::from_fn(|index| {
        // A colour that the palette lacks is grey.
        let colour = palette.as_chunks::<3>().0.get(index).copied();
        image::Rgb(colour.unwrap_or([index as u8; 3]))
    });
    let place = Place { left, top, width, height, palette: true };
    let (canvas_width, canvas_height) = place.canvas((decoder.width().into(), decoder.height().into()));
    let mut canvas = RgbImage::from_pixel(canvas_width, canvas_height, colours[usize::from(background)]);
    for (row, y) in indices.chunks_exact(width.max(1) as usize).zip(top..) {
        for (index, x) in row.iter().zip(left..) {
            canvas.put_pixel(x, y, colours[usize::from(*index)]);
        }
    }
    Ok(canvas)
}

/// Where a frame lies on the canvas.
struct Place {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
    /// Whether there is a palette for it.
    palette: bool,
}

impl Place {
    /// The size of a screen that this frame enlarges.
    fn canvas(&self, screen: (u32, u32)) -> (u32, u32) {
        (screen.0.max(self.left + self.width), screen.1.max(self.top + self.height))
    }
}

fn screen(bytes: &[u8]) -> Result<(u32, u32), Error> {
    Ok((u16_le(bytes, 6)?, u16_le(bytes, 8)?))
}

/// Finds the first frame, behind the palette and the extensions.
fn first_frame(bytes: &[u8]) -> Result<Place, Error> {
    let flags = *bytes.get(10).ok_or_else(incomplete)?;
    let palette = if flags & PALETTE > 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + palette;
    loop {
        match *bytes.get(at).ok_or_else(incomplete)? {
            FRAME => {
                let [left, top, width, height] = [1, 3, 5, 7].map(|place| u16_le(bytes, at + place));
                let own = *bytes.get(at + 9).ok_or_else(incomplete)?;
                let palette = (flags | own) & PALETTE > 0;
                return Ok(Place { left: left?, top: top?, width: width?, height: height?, palette });
            }
            EXTENSION => {
                at += 2;
                loop {
                    let length = usize::from(*bytes.get(at).ok_or_else(incomplete)?);
                    at += 1 + length;
                    if length == 0 {
                        break;
                    }
                }
            }
            _ => return Err(broken("it has no picture")),
        }
    }
}

/// The file with a palette, which the decoder asks for. One that has none is grey.
fn with_palette<'a>(bytes: &'a [u8], place: &Place) -> Cow<'a, [u8]> {
    if place.palette {
        return Cow::Borrowed(bytes);
    }
    let mut changed = Vec::with_capacity(bytes.len() + GREY_PALETTE);
    changed.extend_from_slice(&bytes[..13]);
    changed[10] |= PALETTE | 7;
    changed.extend((0..=u8::MAX).flat_map(|level| [level; 3]));
    changed.extend_from_slice(&bytes[13..]);
    Cow::Owned(changed)
}

/// The bytes of a palette of 256 colours.
const GREY_PALETTE: usize = 3 * 256;

/// The flag that says that there is a palette.
const PALETTE: u8 = 0x80;

const EXTENSION: u8 = b'!';
const FRAME: u8 = b',';

fn u16_le(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let value = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(incomplete)?;
    Ok(u16::from_le_bytes(*value).into())
}

fn incomplete() -> Error {
    broken("its header is incomplete")
}

fn broken(reason: &str) -> Error {
    Error::BrokenImage { format: Format::Gif.name(), reason: reason.to_owned() }
}

fn refusal(error: gif::DecodingError) -> Error {
    broken(&error.to_string())
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A screen of 4 × 3 pixels with a palette of two colours, and then `rest`.
    fn gif(rest: &[&[u8]]) -> Vec<u8> {
        [b"GIF89a\x04\0\x03\0\x80\0\0\x0a\x14\x1e\xc8\xd2\xdc", rest.concat().as_slice()].concat()
    }

    /// One pixel of the second colour, at 1 and 2.
    const PIXEL: &[u8] = b",\x01\0\x02\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;";

    /// The second colour is transparent.
    const TRANSPARENT: &[u8] = b"!\xf9\x04\x01\0\0\x01\0";

    #[test]
    fn pixels_outside_of_the_frame_have_the_first_or_the_transparent_colour() {
        let (first, second) = (Rgb([10, 20, 30]), Rgb([200, 210, 220]));
        let picture = decode(&gif(&[PIXEL])).unwrap();
        assert_eq!(picture.dimensions(), (4, 3));
        for (x, y, colour) in picture.enumerate_pixels() {
            assert_eq!(*colour, if (x, y) == (1, 2) { second } else { first }, "{x}, {y}");
        }
        let picture = decode(&gif(&[TRANSPARENT, PIXEL])).unwrap();
        assert!(picture.pixels().all(|colour| *colour == second));
    }

    #[test]
    fn a_file_without_a_palette_is_grey() {
        let bytes = [b"GIF89a\x01\0\x01\0\0\0\0", &PIXEL[..1], &[0; 4], &PIXEL[5..]].concat();
        check(&bytes, |_, _| Ok(())).unwrap();
        assert_eq!(decode(&bytes).unwrap().into_raw(), [1; 3]);
    }

    #[test]
    fn the_canvas_grows_with_its_first_frame() {
        let mut outside = PIXEL.to_vec();
        outside[1] = 9;
        let bytes = gif(&[TRANSPARENT, &outside]);
        assert_eq!(decode(&bytes).unwrap().dimensions(), (10, 3));
        let refuse_wide = |width, height| {
            if width > 9 { Err(Error::NoPixels { width, height }) } else { Ok(()) }
        };
        assert!(matches!(check(&bytes, refuse_wide), Err(Error::NoPixels { width: 10, height: 3 })));
    }

    #[test]
    fn a_file_that_ends_within_its_picture_is_refused() {
        let whole = gif(&[TRANSPARENT, PIXEL]);
        for length in 6..whole.len() - 3 {
            let cut = &whole[..length];
            let decoded = check(cut, |_, _| Ok(())).and_then(|_| decode(cut));
            assert!(matches!(decoded, Err(Error::BrokenImage { .. })), "{length}");
        }
    }
}
