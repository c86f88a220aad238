//! A model: two towers that turn images and texts into vectors of one space.
//!
//! A model is a folder. The code looks into the files to find out their purpose (see [`graph`]), so that the
//! layouts of several exporters work without renaming. Nothing is trusted before the self-test at load has run: see
//! [`self_test`].
//!
//! Always true: a vector that leaves a model is finite and of length 1 · it depends on the input alone, and not on
//! the rest of its batch, up to the last bits on a GPU.

mod batch_limit;
mod config;
mod fingerprint;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod graph;
mod graph_file;
mod image_tower;
mod normalize;
mod parallel;
mod preprocessing;
mod registry;
mod self_test;
mod tensor;
mod text_tower;

use std::path::Path;
use std::sync::Arc;
use std::{panic, thread};

use pg_clip_wire::{Failure, Fingerprint, MAX_DIMENSIONS};

use self::config::{Config, Kind, LONGEST_CONTEXT};
pub use self::folder::{Folder, installed, locate};
use self::graph_file::GraphFile;
use self::image_tower::ImageTower;
use self::normalize::normalize;
use self::parallel::beside_each_other;
pub(crate) use self::preprocessing::{Interpolation, Preprocessing, ResizeMode};
pub(crate) use self::registry::{Registry, State};
pub(crate) use self::text_tower::Padding;
use self::text_tower::TextTower;
use crate::error::Error;
use crate::log::warning;
use crate::memory;
use crate::onnxruntime::{Gpu, ON_PROCESSOR, OnnxRuntime, Sessions, Urgency, plain};
use crate::pace::Pace;
use crate::text::Tokenizer;

/// A model that is loaded and tested.
#[derive(Debug)]
pub struct Model {
    pub name: String,
    pub fingerprint: Fingerprint,
    /// The length of its vectors, at most [`MAX_DIMENSIONS`].
    pub dimensions: u16,
    pub(crate) preprocessing: Preprocessing,
    pub(crate) tokenizer: Tokenizer,
    /// Whether texts run at their own length instead of being padded to the context length.
    pub(crate) unpadded_text: bool,
    /// How many images one run may take.
    pub(crate) image_batch: usize,
    /// How fast the image tower is.
    pub(crate) image_pace: Pace,
    /// How many texts one run may take.
    pub(crate) text_batch: usize,
    /// By how much the process grew while the model was loaded and tested: its weights, and the memory of ONNX
    /// Runtime for them. It includes memory that other threads took or gave back meanwhile.
    pub(crate) memory_bytes: Option<u64>,
    /// The graph that sees, its input and output, in words.
    pub(crate) image_graph: String,
    /// The graph that reads, its inputs and output, in words.
    pub(crate) text_graph: String,
    image: ImageTower,
    text: TextTower,
    /// None where the processor computes it.
    gpu: Option<Arc<Gpu>>,
    /// Why the GPU that is asked for does not compute it.
    pub(crate) not_on_gpu: Option<String>,
}

impl Model {
    /// Loads the model that is the folder `name` in `models_directory`, and tests it.
    ///
    /// Any fault of its files becomes an [`Error::UnusableModel`] that names the file.
    pub fn load(models_directory: &Path, name: &str, runtime: &OnnxRuntime) -> Result<Model, Error> {
        // The library itself is of no model.
        let sessions = runtime.sessions()?;
        let memory = memory::resident_bytes();
        let folder = Folder::open(models_directory, name)?;
        let unusable = |reason| Error::UnusableModel { name: name.to_owned(), reason };
        let config = Config::read(&folder).map_err(unusable)?;
        let graphs = beside_each_other(&folder.graphs, |graph| GraphFile::read(graph.clone()));
        let graphs: Vec<GraphFile> = graphs.into_iter().collect::<Result<_, _>>().map_err(unusable)?;
        // To read all files once more takes a second for a ViT-B/32: it goes on beside the rest.
        thread::scope(|scope| {
            let fingerprint = scope.spawn(|| fingerprint::of(&folder, &graphs));
            let mut model = Model::load_somewhere(name, &folder, &config, &graphs, &sessions)?;
            let fingerprint =
                fingerprint.join().map_err(|_| unusable("its files could not be read".to_owned()))?;
            model.fingerprint = fingerprint.map_err(unusable)?;
            // ONNX Runtime reads a graph into memory, and has a copy of its weights for a while.
            memory::give_back();
            model.memory_bytes =
                memory::resident_bytes().zip(memory).map(|(now, before)| now.saturating_sub(before));
            Ok(model)
        })
    }

    /// The model without its fingerprint, on the GPU where one is used and can compute it.
    ///
    /// A model that fails on the GPU is tried on the processor: there a fault of its own fails again, and is its error.
    fn load_somewhere(
        name: &str,
        folder: &Folder,
        config: &Config,
        graphs: &[GraphFile],
        sessions: &Sessions,
    ) -> Result<Model, Error> {
        if sessions.gpu().is_none() {
            return Model::load_graphs(name, folder, config, graphs, sessions);
        }
        let reason = if graphs.iter().any(|graph| graph.quantizes_dynamically) {
            "It quantizes values while it computes.".to_owned()
        } else {
            match Model::load_graphs(name, folder, config, graphs, sessions) {
                Ok(model) => return Ok(model),
                Err(error) => plain(&Failure::from(error).detail),
            }
        };
        let mut model = Model::load_graphs(name, folder, config, graphs, &sessions.on_processor())?;
        let told = format!(
            "model \"{name}\" cannot be computed on the GPU, {ON_PROCESSOR} computes it instead: {reason}"
        );
        warning!("{told}");
        model.not_on_gpu = Some(told);
        Ok(model)
    }

    /// The model without its fingerprint.
    fn load_graphs(
        name: &str,
        folder: &Folder,
        config: &Config,
        graphs: &[GraphFile],
        sessions: &Sessions,
    ) -> Result<Model, Error> {
        let unusable = |reason| Error::UnusableModel { name: name.to_owned(), reason };
        let kind = config.kind();
        let (towers, tokenizer) = thread::scope(|scope| {
            let tokenizer = scope.spawn(|| Tokenizer::read(&folder.tokenizer, LONGEST_CONTEXT as usize));
            let towers = graph::open_towers(&folder.path, graphs, kind, sessions);
            (towers, tokenizer.join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
        });
        let (mut towers, mut tokenizer) = (towers.map_err(unusable)?, tokenizer.map_err(unusable)?);
        let preprocessing = towers.reconcile(config.preprocessing(), kind).map_err(unusable)?;
        let context_length = towers.text.context_length(config.context_length().map_err(unusable)?);
        let too_short = |reason| unusable(format!("{}: {reason}", folder.tokenizer.display()));
        tokenizer.cut_at(context_length).map_err(too_short)?;
        if let Some(id) = config.padding_token(&tokenizer) {
            tokenizer.pad_with(id);
        }
        if let Some(cleaning) = config.cleaning(&tokenizer).map_err(unusable)? {
            tokenizer.clean_as(cleaning);
        }
        let tested = self_test::run(&towers, &tokenizer, &preprocessing).map_err(unusable)?;
        if let Some(said) = config.projection()
            && kind == Kind::Clip
            && said != tested.dimensions as u64
        {
            return Err(unusable(format!(
                "its vectors have {} dimensions where its configuration says {said}: they may be what its towers \
                 give before the projection",
                tested.dimensions
            )));
        }
        let dimensions = u16::try_from(tested.dimensions)
            .ok()
            .filter(|_| tested.dimensions <= MAX_DIMENSIONS)
            .ok_or_else(|| unusable(format!("its vectors have {} dimensions", tested.dimensions)))?;
        Ok(Model {
            name: name.to_owned(),
            fingerprint: Fingerprint::default(),
            dimensions,
            preprocessing,
            tokenizer,
            unpadded_text: tested.unpadded_text,
            image_batch: tested.image.batch,
            image_pace: Pace::default(),
            text_batch: tested.text.batch,
            memory_bytes: None,
            image_graph: tested.image.describe(&towers.image.describe()),
            text_graph: tested.text.describe(&towers.text.describe()),
            image: towers.image,
            text: towers.text,
            gpu: sessions.gpu().cloned(),
            not_on_gpu: None,
        })
    }

    /// Embeds preprocessed images, each `3 × height × width` values, channel by channel: one vector of length 1
    /// each, or the error of that image. Takes at most [`Model::image_batch`] images.
    pub(crate) fn embed_images(
        &self,
        images: &[&[f32]],
        urgency: Urgency,
    ) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        let rows = self.image.run(images, urgency).map_err(|reason| self.inference_failed(reason))?;
        Ok(rows.into_iter().map(|row| self.finish(row)).collect())
    }

    /// Embeds texts of equally many token ids: one vector of length 1 each, or the error of that text. Takes at
    /// most [`Model::text_batch`] texts.
    pub(crate) fn embed_texts(&self, texts: &[&[u32]]) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        let padding = (!self.unpadded_text).then_some(self.tokenizer.padding());
        let rows = self.text.run(texts, padding).map_err(|reason| self.inference_failed(reason))?;
        Ok(rows.into_iter().map(|row| self.finish(row)).collect())
    }

    fn finish(&self, row: Vec<f32>) -> Result<Vec<f32>, Error> {
        let bad = |what: String| Error::BadOutput { model: self.name.clone(), what };
        if row.len() != usize::from(self.dimensions) {
            return Err(bad(format!("{} dimensions instead of {}", row.len(), self.dimensions)));
        }
        normalize(row).map_err(|what| bad(what.to_owned()))
    }

    /// Whether a GPU computes it.
    pub(crate) fn is_on_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Whether it was loaded for a GPU that has failed since.
    fn is_stranded(&self) -> bool {
        self.gpu.as_ref().is_some_and(|gpu| !gpu.works())
    }

    /// The self-test has run the graph: on a GPU, it is the GPU that failed.
    fn inference_failed(&self, reason: String) -> Error {
        let model = self.name.clone();
        match &self.gpu {
            Some(gpu) => {
                gpu.has_failed(&reason);
                Error::Gpu { model, reason }
            }
            None => Error::Inference { model, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;
    use crate::image::demo_model;

    /// One run leads and the others go to threads of the pool: see [`crate::onnxruntime::SharedSession`].
    #[test]
    fn runs_beside_each_other_give_the_bits_that_each_gives_alone() {
        let model = demo_model();
        let encode = |words: usize| {
            let text: Vec<&str> = iter::repeat_n("dog", words).collect();
            model.tokenizer.encode(&text.join(" ")).unwrap()
        };
        let texts: Vec<Vec<u32>> = (1..9).map(encode).collect();
        let pixels = 3 * model.preprocessing.width as usize * model.preprocessing.height as usize;
        let image = |seed: usize| (0..pixels).map(|at| (at * seed % 255) as f32 / 255.0).collect();
        let images: Vec<Vec<f32>> = (1..9).map(image).collect();
        let bits = |mut rows: Vec<Result<Vec<f32>, Error>>| -> Vec<u32> {
            rows.remove(0).unwrap().into_iter().map(f32::to_bits).collect()
        };
        let text = |at: usize| bits(model.embed_texts(&[&texts[at]]).unwrap());
        let image = |at: usize| {
            bits(model.embed_images(&[&images[at]], [Urgency::Usual, Urgency::Urgent][at % 2]).unwrap())
        };
        let alone: Vec<_> = (0..8).map(|at| (text(at), image(at))).collect();
        thread::scope(|scope| {
            for at in 0..8 {
                let (alone, text, image) = (&alone, &text, &image);
                scope.spawn(move || (0..20).for_each(|_| assert_eq!((text(at), image(at)), alone[at])));
            }
        });
    }
}
