//! A graph that is read to be written again: its nodes and its weights, each with the bytes that it stood in.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;

use super::fields::{Field, split};
use super::onnx::{self, Node, OperatorSet, Tensor, ValueInfo};

/// An ONNX file.
#[derive(Debug)]
pub(super) struct Graph {
    pub path: PathBuf,
    /// The fields of the model.
    pub model: Vec<Field>,
    /// The fields of the graph.
    pub fields: Vec<Field>,
    pub nodes: Vec<Read<Node>>,
    pub initializers: Vec<Read<Tensor>>,
    pub outputs: Vec<String>,
    /// The version of ONNX's own operators.
    pub operators: i64,
}

/// A message, and the bytes that it was decoded from.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub message: T,
    pub bytes: Bytes,
}

impl Graph {
    /// Reads the file, or says what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Graph, String> {
        let at = |reason: String| format!("{}: {reason}", path.display());
        let bytes = fs::read(path).map_err(|error| at(error.to_string()))?;
        Graph::parse(path, bytes.into()).map_err(at)
    }

    pub(super) fn parse(path: &Path, bytes: Bytes) -> Result<Graph, String> {
        let no_graph = |error: prost::DecodeError| format!("it is no ONNX graph: {error}");
        let model = split(&bytes).map_err(no_graph)?;
        let mut graphs = model.iter().filter(|field| field.number == onnx::MODEL_GRAPH);
        let (Some(graph), None) = (graphs.next(), graphs.next()) else {
            return Err("it is no ONNX graph: it has none, or several".to_owned());
        };
        let fields = split(&graph.value).map_err(no_graph)?;
        let sets: Vec<OperatorSet> = all(&model, onnx::MODEL_OPSETS).map_err(no_graph)?;
        let operators = sets.iter().find(|set| ["", "ai.onnx"].contains(&set.domain.as_str()));
        let outputs: Vec<ValueInfo> = all(&fields, onnx::GRAPH_OUTPUT).map_err(no_graph)?;
        Ok(Graph {
            path: path.to_owned(),
            nodes: read(&fields, onnx::GRAPH_NODE).map_err(no_graph)?,
            initializers: read(&fields, onnx::GRAPH_INITIALIZER).map_err(no_graph)?,
            outputs: outputs.into_iter().map(|output| output.name).collect(),
            operators: operators.map_or(0, |set| set.version),
            model,
            fields,
        })
    }

    /// Its initializers by name.
    pub(super) fn initializers_by_name(&self) -> HashMap<&str, &Tensor> {
        self.initializers.iter().map(|read| (read.message.name.as_str(), &read.message)).collect()
    }

    /// How many bytes its initializers have, those in other files included where the graph gives their length.
    pub(super) fn weight_bytes(&self) -> u64 {
        let bytes = |tensor: &Tensor| {
            let outside = tensor.external().ok().and_then(|place| place.length).unwrap_or(0);
            if tensor.is_external() { outside } else { tensor.raw.len() as u64 }
        };
        self.initializers.iter().map(|read| bytes(&read.message)).sum()
    }
}

fn all<T: Message + Default>(fields: &[Field], number: u32) -> Result<Vec<T>, prost::DecodeError> {
    let messages = read(fields, number)?;
    Ok(messages.into_iter().map(|read| read.message).collect())
}

fn read<T: Message + Default>(fields: &[Field], number: u32) -> Result<Vec<Read<T>>, prost::DecodeError> {
    let wanted = fields.iter().filter(|field| field.number == number);
    wanted
        .map(|field| Ok(Read { message: T::decode(field.value.clone())?, bytes: field.whole.clone() }))
        .collect()
}
