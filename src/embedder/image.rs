//! Untrusted bytes become the input of an image tower.
//!
//! Always true: the size of an image, and the memory that decoding it takes, are read from its header and held
//! against the limits before any decoder runs · a decoder that panics is an image that cannot be decoded · only the
//! first frame of an animation is decoded · the result depends on the bytes and the model's preprocessing alone.

mod bmp;
#[cfg(test)]
mod damage;
mod decode;
mod decoder;
mod exif;
#[cfg(test)]
mod fidelity;
mod format;
mod gif;
mod header;
mod heif;
#[cfg(test)]
mod hostile;
mod jpeg;
mod jpeg_scaled;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod made;
mod memory;
mod metadata;
mod orientation;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod peak;
mod png;
mod resize;
mod tensor;
mod text;
mod tiff;
mod webp;

use std::panic::{self, UnwindSafe};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use self::format::Format;
#[cfg(test)]
pub(crate) use self::parity::{demo_model, demo_runtime, models_directory};
use crate::error::Error;
use crate::model::{Preprocessing, ResizeMode};

/// The memory that decoding an image of at most `max_pixels` takes, in bytes, as its header tells.
pub(crate) fn needed_memory(bytes: &[u8], max_pixels: u64) -> Result<u64, Error> {
    let needed = header::needed_memory(format::recognise(bytes)?, bytes, max_pixels)?;
    memory::admit(needed)?;
    Ok(needed)
}

/// How a large JPEG is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JpegScaling {
    /// At a fraction of its size
    On,
    /// Whole, as the reference decodes it
    Off,
}

impl JpegScaling {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            JpegScaling::On => "on",
            JpegScaling::Off => "off",
        }
    }
}

/// Decodes an image of at most `max_pixels` and prepares it: `3 × height × width` values, channel by channel.
pub(crate) fn prepare(
    bytes: &[u8],
    max_pixels: u64,
    preprocessing: &Preprocessing,
    scaling: JpegScaling,
) -> Result<Vec<f32>, Error> {
    prepare_timed(bytes, max_pixels, preprocessing, scaling).map(|(values, _)| values)
}

/// [`prepare`], and how much of its time resizing took.
pub(crate) fn prepare_timed(
    bytes: &[u8],
    max_pixels: u64,
    preprocessing: &Preprocessing,
    scaling: JpegScaling,
) -> Result<(Vec<f32>, Duration), Error> {
    let format = format::recognise(bytes)?;
    header::check(format, bytes, max_pixels)?;
    // The side that the shorter one of the image becomes; where both become others, the larger of these.
    let side = match preprocessing.resize_mode {
        ResizeMode::Shortest(side) => side,
        ResizeMode::Squash => preprocessing.width.max(preprocessing.height),
    };
    caught(format, || {
        let decoded = decode::decode(format, bytes, (scaling == JpegScaling::On).then_some(side))?;
        let start = Instant::now();
        let values = tensor::normalize(&resize::resize(&decoded, preprocessing)?, preprocessing);
        Ok((values, start.elapsed()))
    })
}

/// Runs a decoder; its panic becomes an error.
fn caught<T>(format: Format, decoder: impl FnOnce() -> Result<T, Error> + UnwindSafe) -> Result<T, Error> {
    let panicked =
        |_| Err(Error::BrokenImage { format: format.name(), reason: "its decoder gave up".to_owned() });
    panic::catch_unwind(decoder).unwrap_or_else(panicked)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;
    use crate::model::Interpolation;

    const CLIP: Preprocessing = Preprocessing {
        width: 224,
        height: 224,
        resize_mode: ResizeMode::Shortest(224),
        interpolation: Interpolation::Bicubic,
        mean: [0.0; 3],
        std: [1.0; 3],
    };

    const ENCODED: [(ImageFormat, &str); 6] = [
        (ImageFormat::Jpeg, "JPEG"),
        (ImageFormat::Png, "PNG"),
        (ImageFormat::Gif, "GIF"),
        (ImageFormat::Bmp, "BMP"),
        (ImageFormat::Tiff, "TIFF"),
        (ImageFormat::WebP, "WebP"),
    ];

    fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([(x / 2) as u8, (y / 2) as u8, ((x * y) / 97) as u8]))
    }

    fn prepare_clip(bytes: &[u8]) -> Result<Vec<f32>, Error> {
        prepare(bytes, 50_000_000, &CLIP, JpegScaling::Off)
    }

    #[test]
    fn every_format_becomes_the_models_input() {
        let reference = prepare_clip(&encode(picture(320, 240), ImageFormat::Png)).unwrap();
        assert_eq!(reference.len(), 3 * 224 * 224);
        for (format, name) in ENCODED {
            let values = prepare_clip(&encode(picture(320, 240), format)).unwrap();
            let off: f32 = values.iter().zip(&reference).map(|(a, b)| (a - b).abs()).sum();
            assert!(off / (values.len() as f32) < 0.05, "{name} is off by {off}");
        }
    }

    #[test]
    fn a_truncated_file_is_refused_and_never_panics() {
        for (format, name) in ENCODED {
            let whole = encode(picture(64, 48), format);
            // The last bytes of a PNG and a GIF say that there is nothing more; their picture is whole before.
            let enough = match format {
                ImageFormat::Png => whole.len() - 16,
                ImageFormat::Gif => whole.len() - 4,
                _ => whole.len(),
            };
            for length in (0..enough).step_by(7).chain(enough.saturating_sub(40)..enough) {
                match prepare_clip(&whole[..length]) {
                    Err(Error::BrokenImage { .. } | Error::UnknownFormat | Error::EmptyImage) => {}
                    // The bytes left at the directory's end may name another kind of file.
                    Err(Error::UnsupportedFeature { .. }) if format == ImageFormat::Tiff => {}
                    other => {
                        panic!("{name} of {length} of {} bytes: {:?}", whole.len(), other.map(|_| "decoded"))
                    }
                }
            }
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        for (format, _) in ENCODED {
            let whole = encode(picture(64, 48), format);
            for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                let _ = prepare_clip(&bytes);
            }
        }
    }

    #[test]
    fn the_limit_is_on_pixels() {
        let bytes = encode(picture(300, 200), ImageFormat::Png);
        assert!(prepare(&bytes, 60_000, &CLIP, JpegScaling::Off).is_ok());
        let error = prepare(&bytes, 59_999, &CLIP, JpegScaling::Off).unwrap_err();
        assert_eq!(error.to_string(), "image has 60000 pixels, and at most 59999 are allowed");
    }

    #[test]
    fn alpha_is_dropped() {
        let opaque = picture(100, 100);
        let mut see_through = RgbaImage::new(100, 100);
        for (from, to) in opaque.pixels().zip(see_through.pixels_mut()) {
            *to = Rgba([from[0], from[1], from[2], from[0]]);
        }
        let [opaque, see_through] =
            [opaque.into(), DynamicImage::from(see_through)].map(|image| encode(image, ImageFormat::Png));
        assert_eq!(prepare_clip(&opaque).unwrap(), prepare_clip(&see_through).unwrap());
    }

    #[test]
    fn the_exif_orientation_is_applied() {
        let upright = picture(320, 240);
        let stored = image::imageops::rotate270(&upright);
        let jpeg = encode(stored, ImageFormat::Jpeg);
        // An EXIF segment whose only entry turns the picture by 90 degrees (6).
        let exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = [&jpeg[..2], exif, &jpeg[2..]].concat();
        let expected = prepare_clip(&encode(upright, ImageFormat::Jpeg)).unwrap();
        let difference = |bytes: &[u8]| {
            let values = prepare_clip(bytes).unwrap();
            values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum::<f32>() / expected.len() as f32
        };
        assert!(difference(&turned) < 0.01, "{}", difference(&turned));
        assert!(difference(&jpeg) > 0.1);
    }
}
