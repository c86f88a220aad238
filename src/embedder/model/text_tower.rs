//! The half of a model that reads.

use ort::value::{DynValue, Tensor, TensorElementType};

use super::batch_limit::batch_limit;
use super::tensor::{Output, TensorInfo};
use crate::onnxruntime::{SharedSession, Urgency};

/// A graph from token ids `[batch, sequence]` to `[batch, dimensions]`.
#[derive(Debug)]
pub(super) struct TextTower {
    session: SharedSession,
    file: String,
    ids: TensorInfo,
    mask: Option<TensorInfo>,
    output: Output,
    image_inputs: Vec<TensorInfo>,
    quantizes_dynamically: bool,
    /// The width and height of images, for such a graph.
    image_size: [usize; 2],
}

/// How a graph takes texts and gives their embeddings.
#[derive(Debug)]
pub(super) struct TextInput {
    pub ids: TensorInfo,
    pub mask: Option<TensorInfo>,
    pub output: Output,
}

impl TextInput {
    /// The inputs that a text is given to.
    pub(super) fn inputs(&self) -> Vec<TensorInfo> {
        [Some(&self.ids), self.mask.as_ref()].into_iter().flatten().cloned().collect()
    }
}

/// How texts are made equally long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Padding {
    pub id: u32,
    /// The context length.
    pub length: usize,
}

impl TextTower {
    /// `image_inputs` has the input of the image tower that is in the same graph.
    pub(super) fn new(
        session: SharedSession,
        file: String,
        text_input: TextInput,
        image_inputs: Vec<TensorInfo>,
        quantizes_dynamically: bool,
    ) -> TextTower {
        let TextInput { ids, mask, output } = text_input;
        TextTower {
            session,
            file,
            ids,
            mask,
            output,
            image_inputs,
            quantizes_dynamically,
            image_size: [0; 2],
        }
    }

    /// Says how large an image is, which a graph of both towers needs also where it reads.
    pub(super) fn set_image_size(&mut self, width: u32, height: u32) {
        self.image_size = [width as usize, height as usize];
    }

    /// The graph's own context length where it is fixed, else the configured one.
    pub(super) fn context_length(&self, configured: usize) -> usize {
        self.ids.fixed(1).unwrap_or(configured)
    }

    /// Whether the graph takes texts of any length.
    pub(super) fn takes_any_length(&self) -> bool {
        self.ids.fixed(1).is_none()
    }

    /// Whether a run rounds its values to their common range, padding included.
    pub(super) fn quantizes_dynamically(&self) -> bool {
        self.quantizes_dynamically
    }

    /// The most texts that one run takes.
    pub(super) fn batch_limit(&self) -> usize {
        batch_limit(&self.ids, self.quantizes_dynamically, self.is_on_gpu())
    }

    /// Whether a GPU computes it.
    pub(super) fn is_on_gpu(&self) -> bool {
        self.session.is_on_gpu()
    }

    /// The recognised graph, inputs and output, in words.
    pub(super) fn describe(&self) -> String {
        let mask = self.mask.as_ref().map_or_else(String::new, |mask| format!(", {mask}"));
        let both = if self.image_inputs.is_empty() { "" } else { ", runs the image tower too" };
        format!("{}: {}{mask} -> {}{both}", self.file, self.ids, self.output.name)
    }

    /// Runs the graph over at most [`TextTower::batch_limit`] texts of equally many token ids: one row each, as the
    /// graph gives it.
    pub(super) fn run(&self, texts: &[&[u32]], padding: Option<Padding>) -> Result<Vec<Vec<f32>>, String> {
        let batch = self.ids.fixed(0).unwrap_or(texts.len());
        let own_length = texts.first().map_or(0, |text| text.len());
        let length = padding.map_or(own_length, |padding| padding.length);
        if length < own_length || texts.iter().any(|text| text.len() != own_length) {
            return Err("texts of different lengths in one batch".to_owned());
        }
        let filler = padding.map_or(0, |padding| padding.id);
        let filled = || texts.iter().cycle().take(batch);
        let ids = filled().flat_map(|text| padded(text.iter().copied(), filler, length));
        let mask = filled().flat_map(|text| padded(text.iter().map(|_| 1), 0, length));

        let shape = [batch, length];
        let mut inputs = vec![(self.ids.name.as_str(), integers(&self.ids, shape, ids)?)];
        if let Some(input) = &self.mask {
            inputs.push((input.name.as_str(), integers(input, shape, mask)?));
        }
        let [width, height] = self.image_size;
        for input in &self.image_inputs {
            inputs.push((input.name.as_str(), input.ones(&[1, 3, height, width])?));
        }
        let output = self.session.run(&inputs, &self.output.name, Urgency::Usual)?;
        self.output.rows(&output, batch, texts.len())
    }
}

fn padded(ids: impl Iterator<Item = u32>, filler: u32, length: usize) -> impl Iterator<Item = u32> {
    ids.chain(std::iter::repeat(filler)).take(length)
}

fn integers(
    input: &TensorInfo,
    shape: [usize; 2],
    values: impl Iterator<Item = u32>,
) -> Result<DynValue, String> {
    let tensor = if input.element == TensorElementType::Int32 {
        // A vocabulary has far fewer than 2^31 tokens.
        Tensor::from_array((shape, values.map(|id| id as i32).collect::<Vec<_>>())).map(Tensor::into_dyn)
    } else {
        Tensor::from_array((shape, values.map(i64::from).collect::<Vec<_>>())).map(Tensor::into_dyn)
    };
    tensor.map_err(|error| error.to_string())
}
