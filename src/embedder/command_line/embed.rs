//! `embed`: one vector, as pgvector writes it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::check::fail;
use super::place::Place;
use crate::error::Error;
use crate::image::{self, JpegScaling};
use crate::onnxruntime::Urgency;

#[derive(Debug, Args)]
pub(crate) struct EmbedOptions {
    /// Model to embed with
    #[arg(long, value_name = "NAME")]
    pub model: String,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Input {
    /// Text to embed
    #[arg(long)]
    pub text: Option<String>,
    /// Image file to embed
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
}

/// Prints the vector, or why there is none.
pub(crate) fn run(options: &EmbedOptions) -> ExitCode {
    match embed(options) {
        Ok(vector) => {
            let values: Vec<String> = vector.iter().map(f32::to_string).collect();
            println!("[{}]", values.join(","));
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}

fn embed(options: &EmbedOptions) -> Result<Vec<f32>, Error> {
    let model = options.place.load(&options.model)?;
    let mut rows = match &options.input {
        Input { image: Some(path), .. } => {
            let bytes = fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
            let values = image::prepare(&bytes, u64::MAX, &model.preprocessing, JpegScaling::On)?;
            model.embed_images(&[&values], Urgency::Usual)?
        }
        Input { text, .. } => {
            let ids = model.tokenizer.encode(text.as_deref().unwrap_or_default())?;
            model.embed_texts(&[&ids])?
        }
    };
    rows.pop().unwrap_or_else(|| Err(Error::Internal("no row for one input".to_owned())))
}
