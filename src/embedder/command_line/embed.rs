//! `embed`: one vector, as pgvector writes it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::fail;
use super::place::Place;
use crate::error::Error;
use crate::one_input::{embed_image, embed_text};

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
    match &options.input {
        Input { image: Some(path), .. } => {
            let bytes = fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
            embed_image(&model, &bytes)
        }
        Input { text, .. } => embed_text(&model, text.as_deref().unwrap_or_default()),
    }
}
