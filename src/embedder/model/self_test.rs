//! The checks that a model must pass before it answers a request.
//!
//! Both towers give finite vectors of one dimension, different ones for different inputs and the same for the same.
//! Texts run unpadded only where the model itself shows that padding does not count. Inputs share a run only where the
//! model shows, to the last bit, that they do not touch each other: one input alone, then a batch of three that has it
//! before and behind another. ONNX Runtime computes a batch of more in the same way as one of three, and not as a single
//! input, so that larger ones are not tried. Where the graph quantizes dynamically, by the largest value of a whole batch,
//! there is nothing to try.
//!
//! A GPU chooses its order of sums by the size of a batch: there the last bits may differ, and the direction of a vector not.
//! The largest batch is tried, or a smaller one that its memory allows.
//!
//! That costs 4 inferences of images and 6 of texts, or 4 where texts have a fixed length; two more where the batch fails.
//! A tower that runs its inputs one by one costs 3 of images and at most 5 of texts. Both towers are tried beside each
//! other: the first request waits for it.

use std::{panic, thread};

use super::batch_limit::MOST_ON_GPU;
use super::graph::Towers;
use super::normalize::normalize;
use super::preprocessing::Preprocessing;
use super::text_tower::TextTower;
use crate::onnxruntime::Urgency;
use crate::text::Tokenizer;

/// The results of the self-test.
#[derive(Debug)]
pub(super) struct Tested {
    pub dimensions: usize,
    pub unpadded_text: bool,
    pub image: Tower,
    pub text: Tower,
}

/// The results of the self-test for one half.
#[derive(Debug)]
pub(super) struct Tower {
    /// How many inputs may share a run.
    pub batch: usize,
    /// Whether the graph itself scales its vectors to length 1.
    normalizes: bool,
}

/// Below this cosine of a padded and an unpadded text, padding changes the meaning.
const SAME_TEXT: f32 = 0.9999;

/// From this cosine on two vectors of one input are the same on a GPU. Sums of 32-bit floats in another order make 0.9999999,
/// and those of 16-bit floats 0.99999.
const SAME_ON_GPU: f32 = 0.9999;

/// The same where values are quantized to the range of the whole text, padding included: two roundings of one vector.
const SAME_QUANTIZED_TEXT: f32 = 0.99;

impl Tower {
    /// The graph in words, with whether it normalises.
    pub(super) fn describe(&self, graph: &str) -> String {
        format!("{graph}, {}", if self.normalizes { "normalised" } else { "not normalised" })
    }
}

/// Runs the self-test, or returns the check that the model failed.
pub(super) fn run(
    towers: &Towers,
    tokenizer: &Tokenizer,
    preprocessing: &Preprocessing,
) -> Result<Tested, String> {
    let texts = two_texts(tokenizer)?;
    let images = [image(preprocessing, 1), image(preprocessing, 2)];

    let try_images = || {
        let (limit, same) = (towers.image.batch_limit(), same_vector(towers.image.is_on_gpu()));
        try_tower(&images, limit, same, |batch| towers.image.run(batch, Urgency::Usual))
            .map_err(|reason| format!("image tower: {reason}"))
    };
    let try_texts = || {
        let unpadded = reads_unpadded(&towers.text, &texts[0], tokenizer)?;
        let padding = Some(tokenizer.padding()).filter(|_| !unpadded);
        let (limit, same) = (towers.text.batch_limit(), same_vector(towers.text.is_on_gpu()));
        Ok((unpadded, try_tower(&texts, limit, same, |batch| towers.text.run(batch, padding))?))
    };
    let (images_tried, texts_tried) = thread::scope(|scope| {
        let images_tried = scope.spawn(try_images);
        let texts_tried = try_texts().map_err(|reason: String| format!("text tower: {reason}"));
        (images_tried.join().unwrap_or_else(|panic| panic::resume_unwind(panic)), texts_tried)
    });
    let (seen, image) = images_tried?;
    let (unpadded_text, (read, text)) = texts_tried?;
    if seen != read {
        return Err(format!("its image tower gives {seen} dimensions and its text tower {read}"));
    }
    Ok(Tested { dimensions: seen, unpadded_text, image, text })
}

/// Words for the texts of the self-test: a tokenizer of many languages may have a word in one piece or in several.
const THINGS: [&str; 6] = ["cat", "dog", "car", "tree", "house", "bird"];

/// The first two different texts of equally many tokens.
fn two_texts(tokenizer: &Tokenizer) -> Result<[Vec<u32>; 2], String> {
    let mut texts: Vec<Vec<u32>> = Vec::new();
    for thing in THINGS {
        let text = tokenizer.encode(&format!("a photo of a {thing}")).map_err(|error| error.to_string())?;
        if let Some(other) = texts.iter().find(|other| other.len() == text.len() && **other != text)
            && text.len() >= 3
        {
            return Ok([other.clone(), text]);
        }
        texts.push(text);
    }
    Err("its tokenizer does not know plain English".to_owned())
}

/// Whether a text means the same without its padding. The padded one is the longest text that there is, and a graph
/// that cannot read it fails here.
fn reads_unpadded(tower: &TextTower, text: &[u32], tokenizer: &Tokenizer) -> Result<bool, String> {
    if !tower.takes_any_length() {
        return Ok(false);
    }
    let padded = tower.run(&[text], Some(tokenizer.padding())).and_then(one).map_err(|reason| {
        let length = tokenizer.context_length();
        format!("it cannot read a text of its context length, {length} tokens: {reason}")
    })?;
    // A graph may take any length by its declaration alone: then it runs padded.
    let Ok(short) = tower.run(&[text], None).and_then(one) else { return Ok(false) };
    let cosine: f32 = short.iter().zip(&padded).map(|(a, b)| a * b).sum();
    let least = if tower.quantizes_dynamically() { SAME_QUANTIZED_TEXT } else { SAME_TEXT };
    Ok(short.len() == padded.len() && cosine > least)
}

fn one(rows: Vec<Vec<f32>>) -> Result<Vec<f32>, String> {
    normalize(one_row(rows)?).map_err(|what| format!("it gives {what}"))
}

fn one_row(mut rows: Vec<Vec<f32>>) -> Result<Vec<f32>, String> {
    rows.pop().ok_or_else(|| "it gives no row".to_owned())
}

/// Runs an input alone and another beside it, in one batch where `limit` allows it. Returns the dimensions and the
/// results.
fn try_tower<T>(
    inputs: &[Vec<T>; 2],
    limit: usize,
    same: SameVector,
    run: impl Fn(&[&[T]]) -> Result<Vec<Vec<f32>>, String>,
) -> Result<(usize, Tower), String> {
    let [first, second] = inputs.each_ref().map(Vec::as_slice);
    let alone = one_row(run(&[first])?)?;
    let mut batch: Vec<&[T]> = vec![first, second, first];
    batch.truncate(limit);
    let together = if batch.len() > 1 { run(&batch)? } else { Vec::new() };
    let is_pure = together.len() > 1 && together.iter().step_by(2).all(|row| same(row, &alone));
    let other = match together.into_iter().nth(1).filter(|_| is_pure) {
        Some(row) => row,
        None => one_row(run(&[second])?)?,
    };
    for row in [&alone, &other] {
        normalize(row.clone()).map_err(|what| format!("it gives {what}"))?;
    }
    if alone == other {
        return Err("it gives the same vector for different inputs".to_owned());
    }
    if !is_pure && !same(&alone, &one_row(run(&[first])?)?) {
        return Err("it gives different vectors for the same input".to_owned());
    }
    let is_normal = |row: &Vec<f32>| (row.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-3;
    let normalizes = is_normal(&alone) && is_normal(&other);
    let batch = if is_pure { largest_batch(first, limit, &run) } else { 1 };
    Ok((alone.len(), Tower { batch, normalizes }))
}

/// The largest batch that runs, up to `limit`. A batch of a processor's size is not tried.
fn largest_batch<T>(
    input: &[T],
    limit: usize,
    run: impl Fn(&[&[T]]) -> Result<Vec<Vec<f32>>, String>,
) -> usize {
    let mut batch = limit;
    while batch >= MOST_ON_GPU / 8 && limit == MOST_ON_GPU && run(&vec![input; batch]).is_err() {
        batch /= 2;
    }
    batch
}

type SameVector = fn(&[f32], &[f32]) -> bool;

/// Whether two rows stand for one vector.
fn same_vector(on_gpu: bool) -> SameVector {
    if on_gpu { |a, b| cosine(a, b) > SAME_ON_GPU } else { |a, b| bits(a) == bits(b) }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

/// Noise as an image that was prepared, always the same for a seed: the linear congruential generator of Numerical
/// Recipes.
fn image(preprocessing: &Preprocessing, seed: u32) -> Vec<f32> {
    let plane = preprocessing.width as usize * preprocessing.height as usize;
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 / 255.0
    };
    let channels = preprocessing.mean.iter().zip(&preprocessing.std);
    let channels = channels.flat_map(|(mean, std)| std::iter::repeat_n((*mean, *std), plane));
    channels.map(|(mean, std)| (noise() - mean) / std).collect()
}
