//! Vectors that lie as CLIP's do: photos in clusters within a cone, and texts in a cone beside it.

use std::fmt::Write as _;

pub(super) const DIMENSIONS: usize = 512;
const CLUSTERS: usize = 1000;
const LATE: usize = 2000;

/// Photos in the order of their keys, and texts and pictures to search them by.
pub(super) struct Vectors {
    pub(super) photos: Vec<Vec<f32>>,
    pub(super) texts: Vec<Vec<f32>>,
    /// As many as there are texts.
    pub(super) pictures: Vec<Vec<f32>>,
    /// Photos that come later.
    pub(super) late: Vec<Vec<f32>>,
}

impl Vectors {
    /// The same ones each time.
    pub(super) fn make(photos: usize, texts: usize) -> Vectors {
        let mut random = fastrand::Rng::with_seed(1);
        let photo_cone = direction(&mut random);
        let text_cone = direction(&mut random);
        let clusters: Vec<Vec<f32>> = (0..CLUSTERS).map(|_| direction(&mut random)).collect();
        let mut around = |cone: &[f32], weights: [f32; 3]| {
            let cluster = &clusters[random.usize(0..CLUSTERS)];
            let noise = direction(&mut random);
            let parts = cone.iter().zip(cluster).zip(noise);
            let [cone, cluster, own] = weights;
            normalized(parts.map(|((a, b), c)| cone * a + cluster * b + own * c).collect())
        };
        // Two photos of a cluster have a cosine of 0.85, and of two clusters of 0.5; a text and the photos of its cluster have
        // one of 0.3, and others of 0.02.
        const PHOTO: [f32; 3] = [0.7, 0.6, 0.39];
        let all_photos = (0..photos).map(|_| around(&photo_cone, PHOTO)).collect();
        let all_texts = (0..texts).map(|_| around(&text_cone, [0.7, 0.5, 0.5])).collect();
        let pictures = (0..texts).map(|_| around(&photo_cone, PHOTO)).collect();
        let late = (0..LATE).map(|_| around(&photo_cone, PHOTO)).collect();
        Vectors { photos: all_photos, texts: all_texts, pictures, late }
    }

    /// The numbers of the photos nearest to a text, of those that a filter lets through.
    pub(super) fn nearest(&self, text: &[f32], count: usize, filter: impl Fn(usize) -> bool) -> Vec<i64> {
        let mut products: Vec<(f32, usize)> = (self.photos.iter().enumerate())
            .filter(|(number, _)| filter(*number))
            .map(|(number, photo)| (photo.iter().zip(text).map(|(a, b)| a * b).sum(), number))
            .collect();
        products.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
        products.iter().take(count).map(|(_, number)| i64::try_from(*number).expect("a key")).collect()
    }
}

/// A vector as pgvector reads it.
pub(super) fn literal(vector: &[f32]) -> String {
    let mut text = String::from("[");
    for value in vector {
        let separator = if text.len() > 1 { "," } else { "" };
        write!(text, "{separator}{value}").expect("a string takes it");
    }
    text + "]"
}

/// As COPY BINARY sends it: the dimensions, nothing, and the values.
pub(super) fn binary(vector: &[f32]) -> Vec<u8> {
    let dimensions = i16::try_from(vector.len()).expect("as many as a vector has");
    let mut bytes = dimensions.to_be_bytes().to_vec();
    bytes.extend(0_i16.to_be_bytes());
    bytes.extend(vector.iter().flat_map(|value| value.to_be_bytes()));
    bytes
}

/// A random direction: normally distributed values, of length 1.
fn direction(random: &mut fastrand::Rng) -> Vec<f32> {
    let mut normal = || {
        // Of twelve uniform numbers; the tails do not matter here.
        (0..12).map(|_| random.f32()).sum::<f32>() - 6.0
    };
    normalized((0..DIMENSIONS).map(|_| normal()).collect())
}

fn normalized(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|value| *value /= length);
    vector
}
