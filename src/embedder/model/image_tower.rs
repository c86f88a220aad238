//! The half of a model that sees.

use half::f16;
use ort::value::{DynValue, Tensor, TensorElementType};

use super::batch_limit::batch_limit;
use super::preprocessing::Preprocessing;
use super::tensor::{Output, TensorInfo};
use crate::onnxruntime::{SharedSession, Urgency};

/// A graph from images to `[batch, dimensions]`.
#[derive(Debug)]
pub(super) struct ImageTower {
    session: SharedSession,
    file: String,
    pixels: Pixels,
    output: Output,
    text_inputs: Vec<TensorInfo>,
    quantizes_dynamically: bool,
    width: usize,
    height: usize,
}

/// The input of an image tower.
#[derive(Debug)]
pub(super) struct Pixels {
    pub input: TensorInfo,
    /// `[batch, height, width, 3]` instead of `[batch, 3, height, width]`.
    channels_last: bool,
}

/// How a graph takes images and gives their embeddings.
#[derive(Debug)]
pub(super) struct ImageInput {
    pub pixels: Pixels,
    pub output: Output,
}

impl Pixels {
    pub(super) fn of(input: TensorInfo) -> Result<Pixels, String> {
        let channels_last = match (input.fixed(1), input.fixed(3)) {
            (None | Some(3), _) if input.fixed(3) != Some(3) => false,
            (Some(3), Some(3)) => false,
            (_, Some(3)) => true,
            _ => return Err(format!("its input {input} does not take three channels")),
        };
        Ok(Pixels { input, channels_last })
    }

    fn is_bytes(&self) -> bool {
        self.input.element == TensorElementType::Uint8
    }

    /// The fixed width and height.
    fn size(&self) -> [Option<usize>; 2] {
        if self.channels_last {
            [self.input.fixed(2), self.input.fixed(1)]
        } else {
            [self.input.fixed(3), self.input.fixed(2)]
        }
    }

    fn shape(&self, batch: usize, width: usize, height: usize) -> [usize; 4] {
        if self.channels_last { [batch, height, width, 3] } else { [batch, 3, height, width] }
    }
}

impl ImageTower {
    /// `text_inputs` are the inputs of the text tower that is in the same graph.
    pub(super) fn new(
        session: SharedSession,
        file: String,
        image_input: ImageInput,
        text_inputs: Vec<TensorInfo>,
        quantizes_dynamically: bool,
    ) -> ImageTower {
        let ImageInput { pixels, output } = image_input;
        ImageTower { session, file, pixels, output, text_inputs, quantizes_dynamically, width: 0, height: 0 }
    }

    /// Brings the preprocessing of the model's files and the graph together: the graph's fixed size must be that of the
    /// preprocessing, and where no file has one, CLIP's own serves a graph of a size of CLIP's.
    pub(super) fn reconcile(
        &mut self,
        said: Option<Preprocessing>,
        is_clip: bool,
    ) -> Result<Preprocessing, String> {
        let [fixed_width, fixed_height] = self.pixels.size();
        let of_clip = || {
            let (width, height) = (u32::try_from(fixed_width?).ok()?, u32::try_from(fixed_height?).ok()?);
            Preprocessing::of_clip(width, height).filter(|_| is_clip)
        };
        let preprocessing = said.or_else(of_clip).ok_or(
            "no file says how images are prepared: there is no preprocessor_config.json, preprocess_cfg.json or \
             open_clip_config.json, and its image tower does not ask for a size of OpenAI's models",
        )?;
        let (width, height) = (preprocessing.width as usize, preprocessing.height as usize);
        if fixed_width.is_some_and(|fixed| fixed != width)
            || fixed_height.is_some_and(|fixed| fixed != height)
        {
            let size = |fixed: Option<usize>| fixed.map_or("any".to_owned(), |size| size.to_string());
            return Err(format!(
                "its image tower takes {} x {} pixels, and its preprocessing makes {width} x {height}",
                size(fixed_width),
                size(fixed_height)
            ));
        }
        (self.width, self.height) = (width, height);
        Ok(if self.pixels.is_bytes() { preprocessing.into_bytes() } else { preprocessing })
    }

    /// The most images that one run takes.
    pub(super) fn batch_limit(&self) -> usize {
        batch_limit(&self.pixels.input, self.quantizes_dynamically, self.is_on_gpu())
    }

    /// Whether a GPU computes it.
    pub(super) fn is_on_gpu(&self) -> bool {
        self.session.is_on_gpu()
    }

    /// The recognised graph, input and output, in words.
    pub(super) fn describe(&self) -> String {
        let both = if self.text_inputs.is_empty() { "" } else { ", runs the text tower too" };
        format!("{}: {} -> {}{both}", self.file, self.pixels.input, self.output.name)
    }

    /// Runs the graph over at most [`ImageTower::batch_limit`] images, each channel by channel: one row each, as the
    /// graph gives it.
    pub(super) fn run(&self, images: &[&[f32]], urgency: Urgency) -> Result<Vec<Vec<f32>>, String> {
        let batch = self.pixels.input.fixed(0).unwrap_or(images.len());
        let mut inputs = vec![(self.pixels.input.name.as_str(), self.tensor(images, batch)?)];
        for input in &self.text_inputs {
            inputs.push((input.name.as_str(), input.ones(&[1, 2])?));
        }
        let output = self.session.run(&inputs, &self.output.name, urgency)?;
        self.output.rows(&output, batch, images.len())
    }

    /// A graph of a fixed batch is filled up with copies, whose vectors are dropped.
    fn tensor(&self, images: &[&[f32]], batch: usize) -> Result<DynValue, String> {
        let filled = images.iter().cycle().take(batch);
        let values: Vec<f32> = match self.pixels.channels_last {
            true => filled.flat_map(|image| interleaved(image)).collect(),
            false => filled.flat_map(|image| image.iter().copied()).collect(),
        };
        let shape = self.pixels.shape(batch, self.width, self.height);
        let tensor = if self.pixels.is_bytes() {
            // Whole numbers of 0 to 255, up to the rounding of f32.
            let bytes: Vec<u8> = values.into_iter().map(|value| value.round() as u8).collect();
            Tensor::from_array((shape, bytes)).map(Tensor::into_dyn)
        } else if self.pixels.input.element == TensorElementType::Float16 {
            let halves: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            Tensor::from_array((shape, halves)).map(Tensor::into_dyn)
        } else {
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        };
        tensor.map_err(|error| error.to_string())
    }
}

/// The values of an image pixel by pixel.
fn interleaved(image: &[f32]) -> impl Iterator<Item = f32> {
    let plane = image.len() / 3;
    (0..plane).flat_map(move |at| [image[at], image[plane + at], image[2 * plane + at]])
}
