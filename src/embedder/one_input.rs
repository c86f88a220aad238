//! One image or text with one model, as the command line embeds it: at once, and of any size.

use crate::error::Error;
use crate::image::{self, JpegScaling};
use crate::model::Model;
use crate::onnxruntime::Urgency;

/// The embedding of the bytes of an image: a vector of length 1.
pub fn embed_image(model: &Model, image: &[u8]) -> Result<Vec<f32>, Error> {
    let values = image::prepare(image, u64::MAX, &model.preprocessing, JpegScaling::On)?;
    only(model.embed_images(&[&values], Urgency::Usual)?)
}

/// The embedding of a text: a vector of length 1.
pub fn embed_text(model: &Model, text: &str) -> Result<Vec<f32>, Error> {
    only(model.embed_texts(&[&model.tokenizer.encode(text)?])?)
}

fn only(mut rows: Vec<Result<Vec<f32>, Error>>) -> Result<Vec<f32>, Error> {
    rows.pop().unwrap_or_else(|| Err(Error::Internal("no row for one input".to_owned())))
}
