//! An 8-bit model out of one that is installed.
//!
//! Most of a model's time goes into products with constant matrices. In the new model the matrices are in 8 bits
//! ([`weights`]) and the values that they are multiplied with are brought to 8 bits while it runs ([`rewrite`]), except
//! where that costs more than it gains ([`products`]). Everything else of a graph is passed on byte for byte
//! ([`fields`]), fields and operators included that are not known here.
//!
//! A graph does not tell how much of a model's meaning is lost: [`fidelity`] measures it.
//!
//! Always true: the model that is read is not changed · weights that lay in a file beside a graph lie in one again,
//! since a graph above 2 GB cannot be read otherwise · the new files have the layout of an exporter, so that
//! `import` takes it.

mod fidelity;
mod fields;
mod graph;
mod onnx;
mod products;
mod rewrite;
#[cfg(test)]
mod tests;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pg_clip_embedder::{Error as EmbedderError, Folder};
use pg_clip_wire::Fingerprint;

pub(crate) use self::fidelity::{Cosines, Fidelity, LEAST_MEAN, Vectors};
use self::graph::Graph;
use self::products::Found;
use crate::error::Error;
use crate::install::{FileRecord, Progress, Staging, copy};

/// The suffix of the new model's name and of its files.
pub(crate) const VARIANT: &str = "int8";

/// A model whose products to quantize are known.
#[derive(Debug)]
pub(crate) struct Plan {
    name: String,
    folder: Folder,
    graphs: Vec<(Graph, Found)>,
    /// That of the files before they were read.
    pub fingerprint: Fingerprint,
}

/// The outcome for a graph.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its path in the new model.
    pub path: String,
    /// How many products are computed in 8 bits, and how many with constant matrices are not.
    pub quantized: usize,
    pub kept: usize,
}

impl Plan {
    /// Reads the graphs of the model `name`, or says why it cannot be quantized.
    pub(crate) fn of(models_directory: &Path, name: &str) -> Result<Plan, Error> {
        let folder = Folder::open(models_directory, name)?;
        let unusable = |reason| EmbedderError::UnusableModel { name: name.to_owned(), reason };
        let unquantizable = |reason| Error::Unquantizable { name: name.to_owned(), reason };
        let fingerprint = folder.fingerprint().map_err(unusable)?;
        let mut graphs = Vec::new();
        for path in &folder.graphs {
            let graph = Graph::read(path).map_err(unusable)?;
            let found = products::find(&graph)
                .map_err(|reason| unquantizable(format!("{}: {reason}", path.display())))?;
            graphs.push((graph, found));
        }
        if graphs.iter().all(|(_, found)| found.chosen.is_empty()) {
            let reason = match graphs.iter().any(|(_, found)| found.has_half_products) {
                true => "it computes in fp16",
                false => "none of its graphs has a block of products with constant matrices",
            };
            return Err(unquantizable(reason.to_owned()));
        }
        Ok(Plan { name: name.to_owned(), folder, graphs, fingerprint })
    }

    /// Prepares the files of the new model, and gives their records.
    pub(crate) fn write(
        self,
        staging: &Staging,
    ) -> Result<(Vec<Outcome>, BTreeMap<String, FileRecord>), Error> {
        let Plan { name, folder, graphs, .. } = self;
        let unquantizable = |reason| Error::Unquantizable { name: name.clone(), reason };
        let mut progress = Progress::new(graphs.iter().map(|(graph, _)| graph.weight_bytes()).sum());
        let (mut outcomes, mut files) = (Vec::new(), BTreeMap::new());
        for (graph, found) in graphs {
            let path = new_path(&relative(&folder, &graph.path));
            progress.file(&path, graph.weight_bytes());
            let rewritten = rewrite::rewrite(&graph, &found)
                .map_err(|reason| unquantizable(format!("{}: {reason}", graph.path.display())))?;
            files.extend(write::write(&graph, &rewritten, &path, staging, &mut progress, unquantizable)?);
            outcomes.push(Outcome { path, quantized: found.chosen.len(), kept: found.kept });
        }
        let others = [&folder.tokenizer].into_iter().chain(&folder.tokenizer_config);
        for file in others.chain(&folder.preprocessing).chain(&folder.configs) {
            let path = relative(&folder, file);
            let copied = copy(file, &staging.file(&path)?, &mut progress)?;
            files.insert(path, FileRecord::from(copied));
        }
        progress.finish();
        Ok((outcomes, files))
    }
}

/// The path of a file in the folder of its model.
fn relative(folder: &Folder, file: &Path) -> String {
    let path = file.strip_prefix(&folder.path).map_or_else(|_| file.to_owned(), PathBuf::from);
    path.to_string_lossy().into_owned()
}

/// `onnx/vision_model_int8.onnx` of `onnx/vision_model.onnx`, as transformers.js calls it.
fn new_path(path: &str) -> String {
    let stem = path.strip_suffix(".onnx").unwrap_or(path);
    let stem = ["_fp32", "_fp16"].iter().find_map(|precision| stem.strip_suffix(precision)).unwrap_or(stem);
    format!("{stem}_{VARIANT}.onnx")
}
