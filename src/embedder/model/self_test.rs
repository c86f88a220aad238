//! What a model must show before it answers anybody.
//!
//! Both towers give finite vectors of one dimension. Texts run unpadded only where the model itself shows that padding
//! does not count, and inputs share a run only where the model shows, to the last bit, that they do not touch each
//! other: dynamic quantization, which scales by the largest value of a whole batch, is found out here and runs one by
//! one.

use super::graph::Towers;
use super::normalize;
use super::text_tower::TextTower;
use crate::text::Tokenizer;

/// What the self-test found.
#[derive(Debug)]
pub(super) struct Tested {
    pub dimensions: usize,
    pub unpadded_text: bool,
    pub image_batch: usize,
    pub text_batch: usize,
}

/// Below this cosine of a padded and an unpadded text, padding changes the meaning.
const SAME_TEXT: f32 = 0.9999;

/// Runs the self-test, or says what the model failed.
pub(super) fn run(towers: &mut Towers, tokenizer: &Tokenizer) -> Result<Tested, String> {
    let encode = |text: &str| tokenizer.encode(text).map_err(|error| error.to_string());
    let texts = [encode("a photo of a cat")?, encode("a photo of a dog")?];
    if texts[0].len() < 3 || texts[0].len() != texts[1].len() || texts[0] == texts[1] {
        return Err("its tokenizer does not know plain English".to_owned());
    }
    let images = [image(towers.image.input_values(), 1), image(towers.image.input_values(), 2)];

    let padding = tokenizer.padding();
    let padded = one(towers.text.run(&[&texts[0]], Some(padding)))
        .map_err(|reason| format!("text tower: {reason}"))?;
    let seen = one(towers.image.run(&[&images[0]])).map_err(|reason| format!("image tower: {reason}"))?;
    if seen.len() != padded.len() {
        return Err(format!(
            "its image tower gives {} dimensions and its text tower {}",
            seen.len(),
            padded.len()
        ));
    }
    let unpadded_text =
        towers.text.takes_any_length() && reads_unpadded(&mut towers.text, &texts[0], &padded);
    let padding = (!unpadded_text).then_some(padding);
    let text_batch = pure_batch(&texts, towers.text.batch_limit(), |batch| towers.text.run(batch, padding))?;
    let image_batch = pure_batch(&images, towers.image.batch_limit(), |batch| towers.image.run(batch))?;
    Ok(Tested { dimensions: seen.len(), unpadded_text, image_batch, text_batch })
}

fn one(rows: Result<Vec<Vec<f32>>, String>) -> Result<Vec<f32>, String> {
    let row = rows?.pop().ok_or("no output")?;
    normalize(row).map_err(str::to_owned)
}

fn reads_unpadded(tower: &mut TextTower, text: &[u32], padded: &[f32]) -> bool {
    one(tower.run(&[text], None)).is_ok_and(|short| {
        let cosine: f32 = short.iter().zip(padded).map(|(a, b)| a * b).sum();
        short.len() == padded.len() && cosine > SAME_TEXT
    })
}

/// The largest batch in which an input gives what it gives alone: `limit`, or 1.
fn pure_batch<T>(
    inputs: &[Vec<T>; 2],
    limit: usize,
    mut run: impl FnMut(&[&[T]]) -> Result<Vec<Vec<f32>>, String>,
) -> Result<usize, String> {
    if limit == 1 {
        return Ok(1);
    }
    let alone = [run(&[&inputs[0]])?, run(&[&inputs[1]])?];
    for size in [3, limit] {
        let batch: Vec<&[T]> = inputs.iter().map(Vec::as_slice).cycle().take(size.min(limit)).collect();
        let together = run(&batch)?;
        let same =
            together.iter().zip(alone.iter().flatten().cycle()).all(|(row, alone)| bits(row) == bits(alone));
        if !same {
            return Ok(1);
        }
    }
    Ok(limit)
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

/// Noise in the range of a normalised image, always the same for a seed: the linear congruential generator of
/// Numerical Recipes.
fn image(values: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 4.0 - 2.0
    });
    noise.take(values).collect()
}
