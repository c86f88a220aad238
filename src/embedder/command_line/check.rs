//! `check`: whether a model can be used, and the parts that were recognised.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use super::failure::fail;
use super::place::Place;
use crate::model::Preprocessing;

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Model to check: the name of its folder
    pub name: String,
    #[command(flatten)]
    pub place: Place,
}

/// Prints what the model is, or why it cannot be used.
pub(crate) fn run(options: &CheckOptions) -> ExitCode {
    let started = Instant::now();
    match options.place.load(&options.name) {
        Ok(model) => {
            let Preprocessing { width, height, resize_mode, interpolation, mean, std } = &model.preprocessing;
            println!("model           {}", model.name);
            println!("fingerprint     {}", hex::encode(model.fingerprint));
            println!("images          {}", model.image_graph);
            println!("texts           {}", model.text_graph);
            println!("dimensions      {}", model.dimensions);
            println!("image size      {width} x {height}");
            println!("resize          {resize_mode:?}, {interpolation:?}");
            println!("normalisation   mean {mean:?}, standard deviation {std:?}");
            println!("context length  {}", model.tokenizer.context_length());
            match model.unpadded_text {
                true => println!("padding         none, it does not count"),
                false => println!("padding         with token {}", model.tokenizer.padding().id),
            }
            println!("cleaning        {}", model.tokenizer.cleaning());
            println!("batches         {} images, {} texts", model.image_batch, model.text_batch);
            println!("loaded in       {:.2} s", started.elapsed().as_secs_f32());
            if let Some(bytes) = model.memory_bytes {
                println!("memory          {} MiB", bytes >> 20);
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(error),
    }
}
