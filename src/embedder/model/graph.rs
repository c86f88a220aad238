//! Which graph of a model sees and which one reads, and by which of its inputs and outputs.
//!
//! A graph with an f32 input of rank 4 (`[batch, 3, height, width]`) is the image tower, one with an integer input of
//! rank 2 (`[batch, sequence]`) the text tower. Exporters name both as they like, so that names count only where
//! shapes do not decide.

use std::path::Path;

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, ValueType};

use super::Folder;
use super::image_tower::ImageTower;
use super::text_tower::TextTower;
use crate::error::Error;
use crate::onnxruntime::OnnxRuntime;

/// Both halves of a model.
#[derive(Debug)]
pub(super) struct Towers {
    pub image: ImageTower,
    pub text: TextTower,
}

/// Loads both graphs of a model and finds out which is which.
pub(super) fn open_towers(folder: &Folder, runtime: &OnnxRuntime) -> Result<Towers, Error> {
    let sessions = runtime.sessions()?;
    let open = |graph: &Path| {
        let tower = sessions.open(graph).and_then(recognise);
        tower.map_err(|reason| Error::UnusableModel {
            name: folder.name.clone(),
            reason: format!("{}: {reason}", graph.display()),
        })
    };
    let [first, second] = &folder.graphs;
    match (open(first)?, open(second)?) {
        (Tower::Image(image), Tower::Text(text)) | (Tower::Text(text), Tower::Image(image)) => {
            Ok(Towers { image, text })
        }
        (Tower::Image(_), Tower::Image(_)) => Err("image"),
        (Tower::Text(_), Tower::Text(_)) => Err("text"),
    }
    .map_err(|role| Error::UnusableModel {
        name: folder.name.clone(),
        reason: format!("{} and {} are both {role} towers", first.display(), second.display()),
    })
}

enum Tower {
    Image(ImageTower),
    Text(TextTower),
}

fn recognise(session: Session) -> Result<Tower, String> {
    let inputs: Vec<TensorInfo> = session.inputs().iter().filter_map(TensorInfo::of).collect();
    let sees = |input: &&TensorInfo| input.element == TensorElementType::Float32 && input.shape.len() == 4;
    let sees_bytes =
        |input: &&TensorInfo| input.element == TensorElementType::Uint8 && input.shape.len() == 4;
    let reads = |input: &&TensorInfo| {
        matches!(input.element, TensorElementType::Int32 | TensorElementType::Int64) && input.shape.len() == 2
    };
    let images: Vec<&TensorInfo> = inputs.iter().filter(sees).collect();
    let (masks, texts): (Vec<&TensorInfo>, Vec<&TensorInfo>) =
        inputs.iter().filter(reads).partition(|input| input.name.contains("mask"));
    if images.len() + texts.len() + masks.len() != session.inputs().len() {
        return Err(match inputs.iter().find(sees_bytes) {
            Some(input) => format!("its input \"{}\" takes 8-bit pixels, which is not supported", input.name),
            None => format!("its inputs are not those of a CLIP model: {}", names(session.inputs())),
        });
    }
    match (images.as_slice(), texts.as_slice(), masks.as_slice()) {
        ([image], [], []) => {
            let output = output(&session, &IMAGE_OUTPUTS)?;
            let image = (*image).clone();
            Ok(Tower::Image(ImageTower::new(session, image, output)?))
        }
        ([], [text], [] | [_]) => {
            let output = output(&session, &TEXT_OUTPUTS)?;
            let (text, mask) = ((*text).clone(), masks.first().map(|mask| (*mask).clone()));
            Ok(Tower::Text(TextTower::new(session, text, mask, output)))
        }
        ([_], [_], _) => {
            Err("it takes an image and a text at once, where one graph for each is expected".to_owned())
        }
        _ => Err(format!("its inputs are not those of a CLIP model: {}", names(session.inputs()))),
    }
}

/// The names that exporters give to an embedding, the most telling first.
const IMAGE_OUTPUTS: [&str; 6] =
    ["image_embeds", "image_embeddings", "image_embedding", "embedding", "embeddings", "output"];
const TEXT_OUTPUTS: [&str; 6] =
    ["text_embeds", "text_embeddings", "text_embedding", "embedding", "embeddings", "output"];

fn output(session: &Session, preferred: &[&str]) -> Result<String, String> {
    let outputs: Vec<TensorInfo> = session
        .outputs()
        .iter()
        .filter_map(TensorInfo::of)
        .filter(|output| output.element == TensorElementType::Float32 && output.shape.len() == 2)
        .collect();
    let named = preferred.iter().find_map(|name| outputs.iter().find(|output| output.name == *name));
    match (named, outputs.as_slice()) {
        (Some(output), _) | (None, [output]) => Ok(output.name.clone()),
        _ => Err(format!("none of its outputs is clearly the embedding: {}", names(session.outputs()))),
    }
}

/// An input or output that is a tensor.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub name: String,
    pub element: TensorElementType,
    /// Negative where the dimension is dynamic.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    /// The size of a dimension that is fixed.
    pub(super) fn fixed(&self, dimension: usize) -> Option<usize> {
        usize::try_from(*self.shape.get(dimension)?).ok().filter(|size| *size > 0)
    }

    fn of(outlet: &Outlet) -> Option<TensorInfo> {
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else { return None };
        Some(TensorInfo { name: outlet.name().to_owned(), element: *ty, shape: shape.to_vec() })
    }
}

fn names(outlets: &[Outlet]) -> String {
    let describe = |outlet: &Outlet| format!("{} ({})", outlet.name(), outlet.dtype());
    outlets.iter().map(describe).collect::<Vec<_>>().join(", ")
}
