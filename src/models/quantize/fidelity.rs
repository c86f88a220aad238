//! How much of a model's meaning is left in another one: cosines of the two models' vectors of the same inputs.
//!
//! The inputs are 64 photos of the demo, one of each thing, and the names of these things with sentences of several
//! lengths. They stand for anything: quantization moves all vectors by about as much.

use pg_clip_embedder::{Model, embed_image, embed_text};

use crate::error::Error;
use crate::install::Progress;

/// A mean cosine below this is not accepted, of images or of texts.
pub(crate) const LEAST_MEAN: f64 = 0.99;

/// The vectors that a model makes of the inputs.
#[derive(Debug)]
pub(crate) struct Vectors {
    images: Vec<Vec<f32>>,
    /// The names of the things on the photos in their order, then the sentences.
    texts: Vec<Vec<f32>>,
}

/// How alike two models are.
#[derive(Debug)]
pub(crate) struct Fidelity {
    pub images: Cosines,
    pub texts: Cosines,
    /// How many names find their photo first, with the source and with the new model.
    pub found: [usize; 2],
}

#[derive(Debug)]
pub(crate) struct Cosines {
    pub count: usize,
    pub mean: f64,
    pub least: f64,
}

impl Vectors {
    /// Embeds the inputs, one by one.
    pub(crate) fn of(model: &Model) -> Result<Vectors, Error> {
        let texts: Vec<String> =
            PHOTOS.iter().map(|(file, _)| concept(file)).chain(SENTENCES.map(str::to_owned)).collect();
        let progress = Progress::of_inputs(&model.name, PHOTOS.len() + texts.len());
        let mut vectors = Vectors { images: Vec::new(), texts: Vec::new() };
        for (_, bytes) in PHOTOS {
            vectors.images.push(embed_image(model, bytes)?);
            progress.advance(1);
        }
        for text in &texts {
            vectors.texts.push(embed_text(model, text)?);
            progress.advance(1);
        }
        progress.finish();
        Ok(vectors)
    }

    /// Compares the new model's vectors with the source's.
    pub(crate) fn compare(&self, new: &Vectors) -> Fidelity {
        Fidelity {
            images: Cosines::of(&self.images, &new.images),
            texts: Cosines::of(&self.texts, &new.texts),
            found: [self.found(), new.found()],
        }
    }

    fn found(&self) -> usize {
        let nearest = |text: &Vec<f32>| {
            let all = self.images.iter().map(|image| cosine(image, text)).enumerate();
            all.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place)
        };
        let names = self.texts.iter().take(self.images.len()).enumerate();
        names.filter(|(place, text)| nearest(text) == Some(*place)).count()
    }
}

impl Fidelity {
    /// Whether the new model may stand for the source.
    pub(crate) fn is_enough(&self) -> bool {
        // Not a number is not enough.
        self.images.mean >= LEAST_MEAN && self.texts.mean >= LEAST_MEAN
    }
}

impl Cosines {
    fn of(old: &[Vec<f32>], new: &[Vec<f32>]) -> Cosines {
        let all: Vec<f64> = old.iter().zip(new).map(|(old, new)| cosine(old, new)).collect();
        Cosines {
            count: all.len(),
            mean: all.iter().sum::<f64>() / all.len() as f64,
            least: all.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }
}

/// Of vectors of length 1.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The thing on a photo, by the name of its file: "red apple" of "red-apple-1.jpg".
fn concept(file: &str) -> String {
    file.split_once("-1.").map_or(file, |(name, _)| name).replace('-', " ")
}

macro_rules! photos {
    ($($file:literal)*) => {
        [$(($file, include_bytes!(concat!("../../../models/demo/photos/", $file)))),*]
    };
}

/// The files and their bytes.
const PHOTOS: [(&str, &[u8]); 64] = photos![
    "pizza-1.jpg" "french-fries-1.png" "taco-1.jpg" "croissant-1.jpg" "egg-1.jpg" "spaghetti-1.jpg"
    "birthday-cake-1.jpg" "cookie-1.jpg" "hot-dog-1.jpg" "red-apple-1.jpg" "grapes-1.jpg" "lemon-1.jpg"
    "pineapple-1.jpg" "avocado-1.jpg" "broccoli-1.jpg" "hot-pepper-1.jpg" "ice-cream-1.jpg" "beer-mug-1.jpg"
    "tropical-drink-1.jpg" "fork-and-knife-1.webp" "chopsticks-1.webp" "candle-1.jpg" "key-1.webp" "dog-1.jpg"
    "cat-1.jpg" "rabbit-1.jpg" "chicken-1.jpg" "duck-1.jpg" "frog-1.jpg" "honeybee-1.jpg" "lady-beetle-1.jpg"
    "elephant-1.png" "giraffe-1.jpg" "bear-1.png" "crocodile-1.jpg" "snake-1.png" "shark-1.jpg" "camel-1.jpg"
    "sunflower-1.jpg" "deciduous-tree-1.jpg" "maple-leaf-1.jpg" "ladder-1.jpg" "wrench-1.webp" "rainbow-1.jpg"
    "snowman-1.jpg" "umbrella-1.png" "bicycle-1.jpg" "bus-1.jpg" "motorcycle-1.jpg" "helicopter-1.webp"
    "ferry-1.png" "fire-engine-1.jpg" "house-1.webp" "mountain-1.jpg" "ferris-wheel-1.jpg" "luggage-1.jpg"
    "sunglasses-1.jpg" "soccer-ball-1.jpg" "person-surfing-1.jpg" "kite-1.jpg" "guitar-1.jpg" "drum-1.jpg"
    "accordion-1.jpg" "radio-1.jpg"
];

const SENTENCES: [&str; 32] = [
    "a photo",
    "music",
    "in the snow",
    "something to drink",
    "a photo of a cat",
    "two dogs on a sofa",
    "a slice of pizza",
    "the kitchen before the renovation",
    "water damage on a ceiling",
    "a red car in front of a house",
    "a cracked window",
    "new tiles in the bathroom",
    "people at a long table, seen from above",
    "a child who flies a kite on a beach",
    "black and white portrait of an old man",
    "close-up of a flower after the rain",
    "a screenshot of a spreadsheet",
    "blurry",
    "night sky over a mountain lake",
    "a receipt",
    "a crowded street in the evening with neon signs and umbrellas",
    "roof with missing shingles",
    "an empty room with white walls and a wooden floor",
    "invoice no. 2024-117",
    "a birthday party",
    "solar panels",
    "a dog that runs through shallow water with a stick in its mouth",
    "a bicycle that leans against a brick wall",
    "a plate of food on a restaurant's table, with a glass of red wine beside it and a candle behind it",
    "the same sofa in green",
    "construction workers with yellow helmets who look at a plan on the hood of a truck",
    "??",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_named_after_their_subjects() {
        assert_eq!(concept("red-apple-1.jpg"), "red apple");
        let mut names: Vec<String> = PHOTOS.iter().map(|(file, _)| concept(file)).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), PHOTOS.len());
        assert!(
            PHOTOS.iter().all(|(_, bytes)| bytes.len() > 1000),
            "a pointer to a file elsewhere is no photo"
        );
    }

    #[test]
    fn losses_are_seen() {
        let vectors = |images: [[f32; 2]; 2], texts: [[f32; 2]; 2]| Vectors {
            images: images.map(Vec::from).to_vec(),
            texts: texts.map(Vec::from).to_vec(),
        };
        let source = vectors([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]);
        let same = source.compare(&source);
        assert!(same.is_enough() && same.found == [2, 2], "{same:?}");
        let turned = source.compare(&vectors([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.8, 0.6]]));
        assert!(!turned.is_enough() && turned.found == [2, 1], "{turned:?}");
        assert!(
            (turned.texts.mean - 0.8).abs() < 1e-6 && (turned.texts.least - 0.6).abs() < 1e-6,
            "{turned:?}"
        );
        let nothing = source.compare(&vectors([[f32::NAN, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]));
        assert!(!nothing.is_enough());
    }
}
