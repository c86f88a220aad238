//! Each kind of image file, compared with the pictures of Pillow and torchvision.
//!
//! `tests/parity/images.py` writes the files, their golden pictures and the tolerances; these tests print the rows
//! of `tests/parity/images.md`. They need the demo model, `models/demo`, and ONNX Runtime, whose library
//! `PG_CLIP_ONNXRUNTIME` names.

use std::env;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use image::RgbImage;
use serde_json::Value;

use super::JpegScaling;
use crate::model::{Interpolation, Model, Preprocessing, ResizeMode};
use crate::onnxruntime::{OnnxRuntime, Urgency};

/// Leaves the values as they are in the picture, from 0 to 1.
pub(super) const WITHOUT_MEAN: Preprocessing = Preprocessing {
    width: 224,
    height: 224,
    resize_mode: ResizeMode::Shortest(224),
    interpolation: Interpolation::Bicubic,
    mean: [0.0; 3],
    std: [1.0; 3],
};

const MAX_PIXELS: u64 = 50_000_000;

/// Of the vectors of two pictures that differ by no more than the tolerances.
const LEAST_COSINE: f32 = 0.9995;

#[test]
fn every_file_becomes_the_picture_of_pillow_and_torchvision() {
    let model = demo_model();
    let mut too_far = Vec::new();
    println!("| file | shows | mean | max | PSNR | tolerance | cosine | OpenAI's order |");
    println!("|---|---|---|---|---|---|---|---|");
    for file in golden_files() {
        let difference = Difference::between(&file.prepare(&WITHOUT_MEAN), &file.reference(&WITHOUT_MEAN));
        let [ours, reference] = [file.prepare(&model.preprocessing), file.reference(&model.preprocessing)]
            .map(|values| embed(model, &values));
        let cosine: f32 = ours.iter().zip(&reference).map(|(a, b)| a * b).sum();
        let row = format!(
            "| `{}` | {} | {:.3} | {} | {} | {}, {} | {cosine:.5} | {}, {} |",
            file.name,
            file.shows,
            difference.mean,
            difference.max,
            difference.decibels(),
            file.tolerance.mean,
            file.tolerance.max,
            file.openai.mean,
            file.openai.max,
        );
        println!("{row}");
        let within = difference.mean <= file.tolerance.mean && difference.max <= file.tolerance.max;
        if !within || cosine < LEAST_COSINE {
            too_far.push(row);
        }
    }
    assert!(too_far.is_empty(), "too far from the reference:\n{}", too_far.join("\n"));
}

/// A file of the manifest with its golden picture.
pub(super) struct GoldenFile {
    pub(super) name: String,
    shows: String,
    pub(super) bytes: Vec<u8>,
    picture: RgbImage,
    /// How far our picture may be from the golden one.
    tolerance: Difference,
    /// How far the picture of OpenAI's code is from it.
    openai: Difference,
}

impl GoldenFile {
    fn prepare(&self, preprocessing: &Preprocessing) -> Vec<f32> {
        super::prepare(&self.bytes, MAX_PIXELS, preprocessing, JpegScaling::Off)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub(super) fn reference(&self, preprocessing: &Preprocessing) -> Vec<f32> {
        super::tensor::normalize(&self.picture, preprocessing)
    }
}

/// In grey levels, 0 to 255, over all values of two pictures.
#[derive(Default)]
struct Difference {
    mean: f64,
    max: f64,
    mean_square: f64,
}

impl Difference {
    fn between(ours: &[f32], reference: &[f32]) -> Difference {
        assert_eq!(ours.len(), reference.len());
        let count = ours.len() as f64;
        ours.iter().zip(reference).fold(Difference::default(), |total, (a, b)| {
            // Both are whole levels; dividing by 255 and multiplying again leaves a rounding error.
            let levels = f64::from((a - b).abs() * 255.0).round();
            Difference {
                mean: total.mean + levels / count,
                max: total.max.max(levels),
                mean_square: total.mean_square + levels * levels / count,
            }
        })
    }

    /// The peak signal-to-noise ratio in dB.
    fn decibels(&self) -> String {
        if self.mean_square == 0.0 {
            return "equal".to_owned();
        }
        format!("{:.1}", 10.0 * (255.0 * 255.0 / self.mean_square).log10())
    }
}

pub(super) fn golden_files() -> Vec<GoldenFile> {
    let manifest = manifest("manifest.json");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let difference = |value: &Value| Difference {
        mean: value["mean"].as_f64().unwrap(),
        max: value["max"].as_f64().unwrap(),
        mean_square: 0.0,
    };
    let files = manifest["files"].as_array().unwrap().iter().map(|file| GoldenFile {
        name: text(&file["file"]),
        shows: text(&file["shows"]),
        bytes: read(&text(&file["file"])),
        picture: image::load_from_memory(&read(&text(&file["golden"]))).unwrap().into_rgb8(),
        tolerance: difference(&file["tolerance"]),
        openai: difference(&file["openai"]),
    });
    files.collect()
}

pub(super) fn manifest(file: &str) -> Value {
    serde_json::from_slice(&read(file)).unwrap()
}

fn read(file: &str) -> Vec<u8> {
    let path = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/data/images").join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn demo_model() -> &'static Model {
    static MODEL: LazyLock<Model> =
        LazyLock::new(|| Model::load(&models_directory(), "demo", demo_runtime()).unwrap());
    &MODEL
}

/// One for all tests: ONNX Runtime has one environment in a process. Its sessions have a pool of threads.
pub(crate) fn demo_runtime() -> &'static OnnxRuntime {
    static RUNTIME: LazyLock<OnnxRuntime> = LazyLock::new(|| {
        let library = env::var_os("PG_CLIP_ONNXRUNTIME")
            .expect("PG_CLIP_ONNXRUNTIME names no library of ONNX Runtime: run `cargo xtask test`");
        let runtime = OnnxRuntime::new(library.into(), const { NonZeroUsize::new(3).unwrap() });
        runtime.ensure_loaded().unwrap();
        runtime
    });
    &RUNTIME
}

/// The folder of the models that come with the project.
pub(crate) fn models_directory() -> PathBuf {
    Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../models")
}

pub(super) fn embed(model: &Model, values: &[f32]) -> Vec<f32> {
    model.embed_images(&[values], Urgency::Usual).unwrap().remove(0).unwrap()
}
