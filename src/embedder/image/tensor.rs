//! Pixels become numbers.

use image::RgbImage;

use crate::model::Preprocessing;

/// Each value scaled to 0..1, less the channel's mean, by its standard deviation: `3 × height × width` values, channel
/// by channel.
pub(super) fn normalize(image: &RgbImage, preprocessing: &Preprocessing) -> Vec<f32> {
    let (pixels, _) = image.as_raw().as_chunks::<3>();
    let mut values = Vec::with_capacity(image.as_raw().len());
    for channel in 0..3 {
        let (mean, std) = (preprocessing.mean[channel], preprocessing.std[channel]);
        values.extend(pixels.iter().map(|pixel| (f32::from(pixel[channel]) / 255.0 - mean) / std));
    }
    values
}
