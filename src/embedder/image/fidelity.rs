//! The vectors of large JPEGs that were decoded at a fraction of their size, against those of the whole pictures.
//!
//! As the parity tests, these need the demo model and ONNX Runtime.

use std::path::Path;

use fastrand::Rng;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, RgbImage};

use super::parity::{demo_model, embed, golden_files};
use super::{JpegScaling, jpeg_scaled, prepare};

const MAX_PIXELS: u64 = 100_000_000;
const LEAST_COSINE: f32 = 0.9995;

/// Sizes of cameras, and sizes that no scale divides, each with its divisor.
const SIZES: [(u32, u32, u32); 5] =
    [(4032, 3024, 4), (3024, 4032, 4), (4031, 3023, 4), (2049, 1365, 2), (6000, 5400, 8)];

#[test]
fn a_fraction_of_a_large_jpeg_has_the_vector_of_the_whole() {
    let model = demo_model();
    let mut random = Rng::with_seed(1);
    let mut least = 1.0_f32;
    for (number, picture) in pictures().iter().enumerate() {
        let (width, height, scale) = SIZES[number % SIZES.len()];
        assert_eq!(jpeg_scaled::scale((width, height), 224), scale);
        let jpeg = photo(picture, width, height, &mut random);
        let [whole, scaled] = [JpegScaling::Off, JpegScaling::On]
            .map(|scaling| prepare(&jpeg, MAX_PIXELS, &model.preprocessing, scaling).unwrap());
        assert_ne!(whole, scaled, "it was decoded at a fraction");
        let [whole, scaled] = [whole, scaled].map(|values| embed(model, &values));
        let cosine: f32 = whole.iter().zip(&scaled).map(|(a, b)| a * b).sum();
        println!("{width} x {height} at 1/{scale}: {cosine:.5}");
        least = least.min(cosine);
    }
    assert!(least >= LEAST_COSINE, "{least}");
}

#[test]
fn a_fraction_of_a_large_jpeg_has_the_vector_of_the_reference() {
    let model = demo_model();
    let mut tried = 0;
    for file in golden_files() {
        let [whole, scaled] = [JpegScaling::Off, JpegScaling::On]
            .map(|scaling| prepare(&file.bytes, MAX_PIXELS, &model.preprocessing, scaling).unwrap());
        if whole == scaled {
            continue;
        }
        tried += 1;
        let [reference, scaled] =
            [file.reference(&model.preprocessing), scaled].map(|values| embed(model, &values));
        let cosine: f32 = reference.iter().zip(&scaled).map(|(a, b)| a * b).sum();
        println!("{}: {cosine:.5}", file.name);
        assert!(cosine >= LEAST_COSINE, "{}: {cosine}", file.name);
    }
    assert!(tried > 0, "a golden file is large");
}

/// The crop is that of the whole picture: torchvision's rounding of its size, and not of a fraction's.
#[test]
fn a_fraction_is_cropped_as_the_whole() {
    let model = demo_model();
    // Halves that are rounded up, and a crop whose offset is not that of the halves.
    let picture = RgbImage::from_fn(4037, 1347, |x, y| {
        image::Rgb([(x / 16) as u8, (y / 8) as u8, ((x + y) / 32) as u8])
    });
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 95).encode_image(&picture).unwrap();
    let [whole, scaled] = [JpegScaling::Off, JpegScaling::On]
        .map(|scaling| prepare(&jpeg, MAX_PIXELS, &model.preprocessing, scaling).unwrap());
    let off: f32 = whole.iter().zip(&scaled).map(|(a, b)| (a - b).abs()).sum::<f32>() / whole.len() as f32;
    assert!(off < 0.01, "{off}");
}

#[test]
fn only_large_images_are_decoded_at_a_fraction() {
    for (size, side, expected) in [
        ((1632, 1224), 224, 1),
        ((1343, 5000), 224, 1),
        ((1344, 5000), 224, 2),
        ((4032, 3024), 224, 4),
        ((4032, 3024), 336, 2),
        ((8064, 6048), 224, 8),
        ((65_535, 1), 224, 1),
    ] {
        assert_eq!(jpeg_scaled::scale(size, side), expected, "{size:?}");
    }
}

/// Photos of the demo.
fn pictures() -> Vec<RgbImage> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../models/demo/photos");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    files.iter().step_by(files.len() / 10).map(|file| image::open(file).unwrap().into_rgb8()).collect()
}

/// A picture of the size of a camera's, with its noise.
fn photo(picture: &RgbImage, width: u32, height: u32, random: &mut Rng) -> Vec<u8> {
    let enlarged = DynamicImage::ImageRgb8(picture.clone());
    let mut enlarged = enlarged.resize_exact(width, height, FilterType::CatmullRom).into_rgb8();
    for value in enlarged.iter_mut() {
        *value = value.saturating_add_signed(random.i8(-10..=10));
    }
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 88).encode_image(&enlarged).unwrap();
    jpeg
}
