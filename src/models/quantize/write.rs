//! A graph as files: its own, and one beside it for weights that were in such a file before.

use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;

use super::fields::{head, split};
use super::graph::{Graph, Read};
use super::onnx::{self, External, ValueInfo};
use super::rewrite::Rewritten;
use super::weights;
use crate::error::Error;
use crate::install::{FileRecord, HashedFile, Progress, Staging};

/// Values in a file begin at a multiple of this, so that ONNX Runtime maps them into memory.
const ALIGNMENT: u64 = 4096;

/// Writes the graph as the file `path` of the model that is prepared. Gives the paths of the written files.
pub(super) fn write(
    graph: &Graph,
    rewritten: &Rewritten,
    path: &str,
    staging: &Staging,
    progress: &mut Progress,
    unusable: impl Fn(String) -> Error,
) -> Result<Vec<(String, FileRecord)>, Error> {
    let mut beside = Beside { path: format!("{path}_data"), staging, file: None };
    let folder = graph.path.parent().unwrap_or(Path::new(""));
    let mut initializers = Vec::new();
    for Read { message, bytes } in &graph.initializers {
        if rewritten.dropped.contains(&message.name) {
            progress.advance(bytes.len() as u64);
            continue;
        }
        if message.is_external() {
            let place = beside.add(&weights::outside(message, folder).map_err(&unusable)?)?;
            progress.advance(place.length.unwrap_or(0));
            initializers.extend(moved(bytes, &place).map_err(|error| unusable(error.to_string()))?);
        } else {
            progress.advance(bytes.len() as u64);
            initializers.push(bytes.clone());
        }
    }
    for added in &rewritten.added {
        let tensor = if added.outside {
            let place = beside.add(&added.tensor.raw)?;
            added.tensor.clone().moved_out(&place)
        } else {
            added.tensor.clone()
        };
        initializers.extend(field(onnx::GRAPH_INITIALIZER, tensor.encode_to_vec().into()));
    }

    let graph_pieces = pieces(graph, rewritten, initializers).map_err(|error| unusable(error.to_string()))?;
    let mut file = HashedFile::create(&staging.file(path)?)?;
    for part in &graph.model {
        if part.number == onnx::MODEL_GRAPH {
            let length = graph_pieces.iter().map(Bytes::len).sum();
            file.write(&head(onnx::MODEL_GRAPH, length))?;
            for piece in &graph_pieces {
                file.write(piece)?;
            }
        } else {
            file.write(&part.whole)?;
        }
    }
    let mut written = vec![(path.to_owned(), FileRecord::from(file.finish()?))];
    if let Some(file) = beside.file {
        written.push((beside.path, FileRecord::from(file.finish()?)));
    }
    Ok(written)
}

/// The fields of the new graph.
fn pieces(
    graph: &Graph,
    rewritten: &Rewritten,
    initializers: Vec<Bytes>,
) -> Result<Vec<Bytes>, prost::DecodeError> {
    let mut pieces = rewritten.nodes.clone();
    for field in &graph.fields {
        match field.number {
            onnx::GRAPH_NODE | onnx::GRAPH_INITIALIZER => continue,
            // Up to IR version 3, initializers are inputs as well.
            onnx::GRAPH_INPUT
                if rewritten.dropped.contains(&ValueInfo::decode(field.value.clone())?.name) =>
            {
                continue;
            }
            _ => pieces.push(field.whole.clone()),
        }
    }
    pieces.extend(initializers);
    Ok(pieces)
}

/// An initializer as it stands in a graph, with its values at another place.
fn moved(initializer: &Bytes, place: &External) -> Result<[Bytes; 2], prost::DecodeError> {
    let tensors = split(initializer)?;
    let mut value = Vec::new();
    for tensor in tensors {
        for part in split(&tensor.value)?.iter().filter(|part| part.number != onnx::TENSOR_EXTERNAL_DATA) {
            value.extend_from_slice(&part.whole);
        }
    }
    for entry in place.entries() {
        for piece in field(onnx::TENSOR_EXTERNAL_DATA, entry.encode_to_vec().into()) {
            value.extend_from_slice(&piece);
        }
    }
    Ok(field(onnx::GRAPH_INITIALIZER, value.into()))
}

fn field(number: u32, value: Bytes) -> [Bytes; 2] {
    [head(number, value.len()), value]
}

/// The file of weights beside a graph, which is made where there are any.
struct Beside<'a> {
    path: String,
    staging: &'a Staging,
    file: Option<HashedFile>,
}

impl Beside<'_> {
    fn add(&mut self, values: &[u8]) -> Result<External, Error> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(HashedFile::create(&self.staging.file(&self.path)?)?),
        };
        let gap = file.size().next_multiple_of(ALIGNMENT) - file.size();
        file.write(&vec![0; gap as usize])?;
        let offset = file.size();
        file.write(values)?;
        let location = self.path.rsplit_once('/').map_or(self.path.as_str(), |(_, name)| name);
        Ok(External { location: location.to_owned(), offset, length: Some(values.len() as u64) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::onnx::Tensor;
    use super::*;

    #[test]
    fn a_tensor_that_moves_keeps_unknown_fields() {
        let mut tensor = Tensor::inside("w", onnx::FLOAT, &[2], Vec::new());
        tensor.external_data = External { location: "old".to_owned(), offset: 0, length: None }.entries();
        let unknown = b"\xa2\x06\x03new";
        let value = [&tensor.encode_to_vec()[..], unknown].concat();
        let place = External { location: "new_data".to_owned(), offset: 4096, length: Some(8) };
        let [_, moved] =
            moved(&field(onnx::GRAPH_INITIALIZER, value.into()).concat().into(), &place).unwrap();
        assert!(moved.windows(unknown.len()).any(|window| window == unknown), "{moved:?}");
        assert_eq!(Tensor::decode(moved).unwrap().external(), Ok(place));
    }
}
