//! The half of a model that reads.

use ort::session::{Session, SessionOutputs};
use ort::value::{DynValue, Tensor, TensorElementType};

use super::MAX_BATCH;
use super::graph::TensorInfo;

/// A graph from token ids `[batch, sequence]` to `[batch, dimensions]` in f32.
#[derive(Debug)]
pub(super) struct TextTower {
    session: Session,
    ids: TensorInfo,
    mask: Option<TensorInfo>,
    output: String,
}

/// How texts are made equally long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Padding {
    pub id: u32,
    /// The context length.
    pub length: usize,
}

impl TextTower {
    pub(super) fn new(
        session: Session,
        ids: TensorInfo,
        mask: Option<TensorInfo>,
        output: String,
    ) -> TextTower {
        TextTower { session, ids, mask, output }
    }

    /// The graph's own context length where it is fixed, else the configured one.
    pub(super) fn context_length(&self, configured: usize) -> usize {
        self.ids.fixed(1).unwrap_or(configured)
    }

    /// Whether the graph takes texts of any length.
    pub(super) fn takes_any_length(&self) -> bool {
        self.ids.fixed(1).is_none()
    }

    /// The most texts that one run takes.
    pub(super) fn batch_limit(&self) -> usize {
        self.ids.fixed(0).unwrap_or(MAX_BATCH)
    }

    /// Runs the graph over at most [`TextTower::batch_limit`] texts of equally many token ids: one row each, as the
    /// graph gives it.
    pub(super) fn run(
        &mut self,
        texts: &[&[u32]],
        padding: Option<Padding>,
    ) -> Result<Vec<Vec<f32>>, String> {
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
        let outputs = self.session.run(inputs).map_err(|error| error.to_string())?;
        rows(&outputs, &self.output, batch, texts.len())
    }
}

/// The first `wanted` rows of an output that must be `[batch, dimensions]`.
pub(super) fn rows(
    outputs: &SessionOutputs,
    name: &str,
    batch: usize,
    wanted: usize,
) -> Result<Vec<Vec<f32>>, String> {
    let output = outputs.get(name).ok_or_else(|| format!("no output \"{name}\""))?;
    let (shape, values) = output.try_extract_tensor::<f32>().map_err(|error| error.to_string())?;
    match **shape {
        [rows, dimensions] if rows == batch as i64 && dimensions > 0 => {
            Ok(values.chunks_exact(dimensions as usize).take(wanted).map(<[f32]>::to_vec).collect())
        }
        _ => Err(format!("output \"{name}\" has the shape {shape} for a batch of {batch}")),
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
