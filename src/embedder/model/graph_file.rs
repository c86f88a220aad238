//! The facts that the bytes of an ONNX file tell without ONNX Runtime.
//!
//! A graph above 2 GB, and many a smaller one, has its weights in files beside it and names them. ONNX Runtime
//! reads them on its own; this module finds their names for the fingerprint, and to report a missing one. Both
//! facts that are wanted here stand in the file as short protobuf fields with a fixed beginning, which are searched
//! for outside of large weights; small ones have no such bytes.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Component, Path, PathBuf};

use crate::onnxruntime::Outline;

/// An ONNX file.
#[derive(Debug)]
pub(crate) struct GraphFile {
    pub path: PathBuf,
    /// The files that hold its weights, each in the folder of the graph or below it.
    pub external_data: Vec<PathBuf>,
    /// Whether activations are quantized by the largest value of a whole batch, so that a vector depends on its
    /// batch.
    pub quantizes_dynamically: bool,
}

/// `StringStringEntryProto { key: "location", value: … }`, which only stands in a tensor with external data.
const LOCATION: &[u8] = b"\x0a\x08location\x12";
/// `NodeProto { op_type: "DynamicQuantizeLinear" }` and the operators that fuse it.
const DYNAMIC_QUANTIZATION: [&[u8]; 3] =
    [b"\x22\x15DynamicQuantizeLinear", b"\x22\x16DynamicQuantizeMatMul", b"\x22\x14DynamicQuantizeLSTM"];

/// The longest name of a file, as Linux has it; its length is then one or two bytes.
pub(super) const LONGEST_NAME: usize = 255;

impl GraphFile {
    /// Looks through the file, or says what is wrong with it.
    pub(crate) fn read(path: PathBuf) -> Result<GraphFile, String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let (locations, quantizes_dynamically) = File::open(&path).and_then(look_through).map_err(failed)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut external_data = Vec::new();
        for location in locations {
            let inside = Path::new(&location).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside {
                return Err(format!(
                    "{}: its weights are in {location}, outside of its folder",
                    path.display()
                ));
            }
            let file = folder.join(&location);
            if !file.is_file() {
                return Err(format!("{}: the file of its weights, {location}, is missing", path.display()));
            }
            external_data.push(file);
        }
        Ok(GraphFile { path, external_data, quantizes_dynamically })
    }
}

/// Reads a file, and of a graph no more than its outline.
fn look_through(mut file: File) -> io::Result<(Vec<String>, bool)> {
    match Outline::read(&file, None)? {
        Some(outline) => scan(outline.bytes.as_slice()),
        None => {
            file.rewind()?;
            scan(file)
        }
    }
}

/// The names of the files with weights, and whether activations are quantized by the largest value of a batch.
pub(super) fn scan(mut file: impl Read) -> io::Result<(Vec<String>, bool)> {
    const CHUNK: usize = 1 << 20;
    // A match may begin in one chunk and end in the next.
    const OVERLAP: usize = LOCATION.len() + 2 + LONGEST_NAME;
    let (mut locations, mut dynamic) = (Vec::<String>::new(), false);
    let mut window = Vec::with_capacity(CHUNK + OVERLAP);
    loop {
        let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut window)?;
        for at in find(&window, LOCATION) {
            if let Some(location) = text(&window[at + LOCATION.len()..])
                && !locations.iter().any(|known| known == location)
            {
                locations.push(location.to_owned());
            }
        }
        dynamic |= DYNAMIC_QUANTIZATION.iter().any(|pattern| find(&window, pattern).next().is_some());
        if read == 0 {
            return Ok((locations, dynamic));
        }
        window.drain(..window.len().saturating_sub(OVERLAP));
    }
}

fn find<'a>(bytes: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> {
    memchr::memmem::find_iter(bytes, pattern)
}

/// A protobuf string: its length as a varint of at most two bytes, then UTF-8. None where it is cut off.
fn text(bytes: &[u8]) -> Option<&str> {
    let (length, bytes) = match bytes {
        [first, rest @ ..] if *first < 0x80 => (usize::from(*first), rest),
        [first, second, rest @ ..] if *second < 0x80 => {
            (usize::from(first & 0x7f) | usize::from(*second) << 7, rest)
        }
        _ => return None,
    };
    std::str::from_utf8(bytes.get(..length.min(LONGEST_NAME))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(location: &str) -> Vec<u8> {
        let length = u8::try_from(location.len()).unwrap();
        [LOCATION, &[length], location.as_bytes()].concat()
    }

    #[test]
    fn names_are_found_wherever_they_lie() {
        for before in [0, 1, (1 << 20) - 5, (1 << 20) - LOCATION.len() - 1, (1 << 20) + 3] {
            let bytes = [vec![0; before], tensor("model.onnx_data"), vec![0; 300], tensor("model.onnx_data")]
                .concat();
            assert_eq!(
                scan(bytes.as_slice()).unwrap(),
                (vec!["model.onnx_data".to_owned()], false),
                "{before}"
            );
            let bytes = [vec![0; before], DYNAMIC_QUANTIZATION[0].to_vec()].concat();
            assert_eq!(scan(bytes.as_slice()).unwrap(), (Vec::new(), true), "{before}");
        }
        assert_eq!(scan([LOCATION, b"\x7fcut"].concat().as_slice()).unwrap(), (Vec::new(), false));
    }

    #[test]
    fn weights_lie_beside_the_graph_or_nowhere() {
        let folder = temp_dir::TempDir::new().unwrap();
        let graph = folder.path().join("model.onnx");
        for (location, complaint) in [
            ("../weights", "outside of its folder"),
            ("/etc/passwd", "outside of its folder"),
            ("weights", "is missing"),
        ] {
            std::fs::write(&graph, tensor(location)).unwrap();
            let error = GraphFile::read(graph.clone()).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
        std::fs::write(folder.path().join("weights"), "").unwrap();
        let file = GraphFile::read(graph).unwrap();
        assert_eq!(file.external_data, [folder.path().join("weights")]);
    }
}
