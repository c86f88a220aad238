//! Which graph of a model sees and which one reads, and by which of its inputs and outputs.
//!
//! An input of rank 4 takes images: f32, f16, or bytes that the graph normalises itself. An integer input of rank 2 takes
//! token ids. Exporters name both as they like, so that names count only where shapes do not decide. For outputs they
//! do: a tower without its projection has a `pooler_output` of the same rank, and of texts even of the same
//! dimensions, which lies in another space. It is the embedding only in a model that has no projections, SigLIP.

use std::path::Path;

use ort::value::{Outlet, TensorElementType, ValueType};

use super::config::Kind;
use super::graph_file::GraphFile;
use super::image_tower::{ImageInput, ImageTower, Pixels};
use super::parallel::beside_each_other;
use super::preprocessing::Preprocessing;
use super::tensor::{Output, TensorInfo};
use super::text_tower::{TextInput, TextTower};
use crate::onnxruntime::{Sessions, SharedSession};

/// Both halves of a model.
#[derive(Debug)]
pub(super) struct Towers {
    pub image: ImageTower,
    pub text: TextTower,
}

impl Towers {
    /// Brings the preprocessing of the model's files and the inputs of its graphs together.
    pub(super) fn reconcile(
        &mut self,
        preprocessing: Option<Preprocessing>,
        kind: Kind,
    ) -> Result<Preprocessing, String> {
        let preprocessing = self.image.reconcile(preprocessing, kind == Kind::Clip)?;
        self.text.set_image_size(preprocessing.width, preprocessing.height);
        Ok(preprocessing)
    }
}

/// Loads the graphs of a model and finds out which is which.
///
/// A graph that holds both towers is loaded twice, so that a search never waits for images, and each run gives it one
/// input of the other kind, because ONNX Runtime runs a graph whole.
pub(super) fn open_towers(
    folder: &Path,
    graphs: &[GraphFile],
    kind: Kind,
    sessions: &Sessions,
) -> Result<Towers, String> {
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    let opened = beside_each_other(graphs, |graph| sessions.open(&graph.path, &graph.external_data));
    for (graph, session) in graphs.iter().zip(opened) {
        let at = |reason: String| format!("{}: {reason}", graph.path.display());
        let file = graph.path.strip_prefix(folder).unwrap_or(&graph.path).display().to_string();
        let dynamic = graph.quantizes_dynamically;
        let unloadable = |reason| at(format!("ONNX Runtime cannot load it: {reason}"));
        let session = session.map_err(unloadable)?;
        match recognise(&session, kind).map_err(at)? {
            Half::Image(image_input) => {
                images.push(ImageTower::new(session, file, image_input, Vec::new(), dynamic))
            }
            Half::Text(text_input) => {
                texts.push(TextTower::new(session, file, text_input, Vec::new(), dynamic))
            }
            Half::Both(image_input, text_input) => {
                let second = sessions.open(&graph.path, &graph.external_data).map_err(unloadable)?;
                let (of_images, of_texts) = (vec![image_input.pixels.input.clone()], text_input.inputs());
                images.push(ImageTower::new(session, file.clone(), image_input, of_texts, dynamic));
                texts.push(TextTower::new(second, file, text_input, of_images, dynamic));
            }
        }
    }
    let files: Vec<String> = graphs.iter().map(|graph| graph.path.display().to_string()).collect();
    let files = files.join(" and ");
    match (images.len(), texts.len()) {
        (1, 1) => {}
        (1, 0) => return Err(format!("{files} is an image tower, and its text tower is missing")),
        (0, 1) => return Err(format!("{files} is a text tower, and its image tower is missing")),
        (2, 0) => return Err(format!("{files} are both image towers")),
        (0, 2) => return Err(format!("{files} are both text towers")),
        _ => return Err(format!("{files} have more than one image tower or text tower")),
    }
    Ok(Towers { image: images.remove(0), text: texts.remove(0) })
}

/// The half of a model that a graph is.
enum Half {
    Image(ImageInput),
    Text(TextInput),
    Both(ImageInput, TextInput),
}

fn recognise(session: &SharedSession, kind: Kind) -> Result<Half, String> {
    let (mut images, mut texts, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    for outlet in session.inputs() {
        let input = TensorInfo::of(outlet).ok_or_else(|| unlike_clip(session))?;
        let is_integer = matches!(input.element, TensorElementType::Int32 | TensorElementType::Int64);
        match (input.element, input.shape.len()) {
            (TensorElementType::Float32 | TensorElementType::Float16 | TensorElementType::Uint8, 4) => {
                images.push(Pixels::of(input)?);
            }
            (_, 2) if is_integer && input.name.contains("token_type") => {
                return Err(format!("its input {} is one of BERT's, which CLIP does not have", input.name));
            }
            (_, 2) if is_integer && input.name.contains("mask") => masks.push(input),
            (_, 2) if is_integer => texts.push(input),
            _ => return Err(unlike_clip(session)),
        }
    }
    if images.len() > 1 || texts.len() > 1 || masks.len() > texts.len() {
        return Err(unlike_clip(session));
    }
    let image_input =
        |pixels| Ok::<_, String>(ImageInput { pixels, output: output(session, &IMAGE_OUTPUTS, kind)? });
    let text_input =
        |ids, mask| Ok::<_, String>(TextInput { ids, mask, output: output(session, &TEXT_OUTPUTS, kind)? });
    match (images.pop(), texts.pop()) {
        (Some(pixels), None) => Ok(Half::Image(image_input(pixels)?)),
        (None, Some(ids)) => Ok(Half::Text(text_input(ids, masks.pop())?)),
        (Some(pixels), Some(ids)) => {
            let (image_input, text_input) = (image_input(pixels)?, text_input(ids, masks.pop())?);
            if image_input.output.name == text_input.output.name {
                return Err(format!(
                    "its output {} would stand for images and for texts",
                    image_input.output.name
                ));
            }
            Ok(Half::Both(image_input, text_input))
        }
        (None, None) => Err(unlike_clip(session)),
    }
}

fn unlike_clip(session: &SharedSession) -> String {
    format!("its inputs are not those of a CLIP model: {}", names(session.inputs()))
}

/// The names that exporters give to an embedding, the most telling first.
const IMAGE_OUTPUTS: [&str; 7] = [
    "image_embeds",
    "image_embeddings",
    "image_embedding",
    "image_features",
    "embedding",
    "embeddings",
    "output",
];
const TEXT_OUTPUTS: [&str; 7] = [
    "text_embeds",
    "text_embeddings",
    "text_embedding",
    "text_features",
    "embedding",
    "embeddings",
    "output",
];

fn output(session: &SharedSession, preferred: &[&str], kind: Kind) -> Result<Output, String> {
    let all: Vec<TensorInfo> = session.outputs().iter().filter_map(TensorInfo::of).collect();
    if let Some(output) = preferred.iter().find_map(|name| all.iter().find(|output| output.name == *name)) {
        return Output::of(output);
    }
    let (pooled, others): (Vec<&TensorInfo>, Vec<&TensorInfo>) = all
        .iter()
        .filter(|output| output.shape.len() == 2 && !output.name.contains("logits"))
        .partition(|output| output.name.contains("pool"));
    match (others.as_slice(), pooled.as_slice(), kind) {
        ([output], _, _) | ([], [output], Kind::Siglip) => Output::of(output),
        ([], [output, ..], Kind::Clip) => Err(format!(
            "its output {} is what the tower pools before the projection into the space that images and texts \
             share; export the model with its projection (as CLIPVisionModelWithProjection and \
             CLIPTextModelWithProjection)",
            output.name
        )),
        ([], [], _) => Err(format!(
            "none of its outputs is an embedding, which has two dimensions, batch and length: {}",
            names(session.outputs())
        )),
        _ => Err(format!("none of its outputs is clearly the embedding: {}", names(session.outputs()))),
    }
}

fn names(outlets: &[Outlet]) -> String {
    let describe = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { .. } => TensorInfo::of(outlet).map_or_else(String::new, |info| info.to_string()),
        other => format!("{} ({other})", outlet.name()),
    };
    let all: Vec<String> = outlets.iter().map(describe).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
