//! A large JPEG at an eighth, a quarter or a half of its size.
//!
//! Most pixels of a large photo are decoded only to be averaged away. libjpeg computes fewer of them from the same
//! coefficients, as `Image.draft` of Pillow has it do. The scaled picture has three times the model's size or more:
//! from there on the vectors have a cosine of 0.9999 to those of the whole picture (`super::fidelity`), and below
//! it they come apart where a picture is fine. The file was found to be whole before, and an unusual one is left to
//! the other decoder.

use image::RgbImage;
use mozjpeg::{ColorSpace, Decompress};

/// How many pixels are left for each one that the resize makes of them, along an axis.
const LEAST: u32 = 3;

/// The divisors of the size, the largest first, and the numerators over 8 that libjpeg takes.
const SCALES: [(u32, u8); 3] = [(8, 1), (4, 2), (2, 4)];

/// The divisor of the size where the shorter side is resized to `side` pixels; 1 for an image that is not large.
pub(super) fn scale((width, height): (u32, u32), side: u32) -> u32 {
    let enough = |scale: &u32| width.min(height) / scale >= LEAST * side;
    SCALES.map(|(scale, _)| scale).into_iter().find(enough).unwrap_or(1)
}

/// The picture at a `scale` that [`scale`] returned; sides are rounded up. Nothing where the file is not of a common kind.
pub(super) fn decode(bytes: &[u8], scale: u32) -> Option<RgbImage> {
    let (_, numerator) = SCALES.into_iter().find(|(of_size, _)| *of_size == scale)?;
    let mut decoder = Decompress::new_mem(bytes).ok()?;
    let is_common = matches!(decoder.color_space(), ColorSpace::JCS_YCbCr | ColorSpace::JCS_GRAYSCALE);
    let size = [decoder.width(), decoder.height()].map(|side| side.div_ceil(scale as usize));
    if !is_common {
        return None;
    }
    decoder.scale(numerator);
    let mut decoder = decoder.rgb().ok()?;
    if [decoder.width(), decoder.height()] != size {
        return None;
    }
    let pixels: Vec<u8> = decoder.read_scanlines::<[u8; 3]>().ok()?.into_flattened();
    decoder.finish().ok()?;
    let [width, height] = size.map(|side| u32::try_from(side).ok());
    RgbImage::from_raw(width?, height?, pixels)
}
