//! A graph without its large weights, which it names by their place in the file instead.
//!
//! ONNX Runtime reads a file whole, and copies each weight twice before it packs it for the processor. Weights in a
//! file of their own it maps into memory and packs from there. So this module gives it the graph as if its own file
//! were such a file: a ViT-B/32 in fp32 loads in half of the time, most of which went into pages for the copies.
//! The graph computes the same.
//!
//! Sources of the formats: <https://protobuf.dev/programming-guides/encoding/>, and `onnx.proto` for the numbers.

use std::io::{self, BufReader, Read, Seek};

/// A graph without its large weights.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    /// An ONNX file.
    pub bytes: Vec<u8>,
    /// How many weights were left out.
    pub left_out: usize,
}

/// Weights of so many bytes are left out: each costs a mapping.
const LARGE: u64 = 64 << 10;
/// The most bytes of an outline, which is kept in memory.
const LONGEST_OUTLINE: u64 = 1 << 30;

/// `ModelProto.graph`, `GraphProto.initializer`.
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
/// `TensorProto.raw_data`, `.external_data`, `.data_location` and its value for weights in another file.
const TENSOR_RAW_DATA: u64 = 9;
const TENSOR_EXTERNAL_DATA: u64 = 13;
const TENSOR_DATA_LOCATION: u64 = 14;
const EXTERNAL: u64 = 1;
/// `StringStringEntryProto.key` and `.value`.
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;

impl Outline {
    /// Reads a file. Where it has a name, large weights are named by their place in it; else nothing stands for
    /// them, and the outline is no graph that can be loaded. None where the file is no protobuf message, or no
    /// graph: ONNX Runtime then reports the error.
    pub(crate) fn read(file: impl Read + Seek, name: Option<&str>) -> io::Result<Option<Outline>> {
        let mut walk = Walk { file: BufReader::with_capacity(4096, file), at: 0, kept: 0, name, left_out: 0 };
        match walk.model() {
            Ok(bytes) => Ok(Some(Outline { bytes, left_out: walk.left_out })),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

struct Walk<'a, F> {
    file: BufReader<F>,
    /// How far the file is read.
    at: u64,
    /// How many bytes of it are kept.
    kept: u64,
    name: Option<&'a str>,
    left_out: usize,
}

/// The key of a field, and the length of its value where that follows.
struct Head {
    number: u64,
    wire: Wire,
    /// As they stand in the file.
    bytes: Vec<u8>,
}

enum Wire {
    /// A number, which is in [`Head::bytes`].
    Number,
    /// So many bytes follow.
    Bytes(u64),
}

impl<F: Read + Seek> Walk<'_, F> {
    fn model(&mut self) -> io::Result<Vec<u8>> {
        let (mut model, mut graphs) = (Vec::new(), 0);
        while !self.is_at_end()? {
            let head = self.head()?;
            match head.wire {
                Wire::Bytes(length) if head.number == MODEL_GRAPH => {
                    graphs += 1;
                    let graph = self.graph(length)?;
                    append(&mut model, MODEL_GRAPH, &graph);
                }
                _ => self.keep(&head, &mut model)?,
            }
        }
        // Of several, protobuf makes one.
        if graphs == 1 { Ok(model) } else { Err(malformed("a model has one graph")) }
    }

    fn graph(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let (mut graph, end) = (Vec::new(), self.end(length)?);
        while self.at < end {
            let head = self.head()?;
            match head.wire {
                Wire::Bytes(length) if head.number == GRAPH_INITIALIZER => {
                    let tensor = self.tensor(length)?;
                    append(&mut graph, GRAPH_INITIALIZER, &tensor);
                }
                _ => self.keep(&head, &mut graph)?,
            }
        }
        self.ends(end)?;
        Ok(graph)
    }

    fn tensor(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let (mut tensor, end) = (Vec::new(), self.end(length)?);
        let mut values = None;
        while self.at < end {
            let head = self.head()?;
            match head.wire {
                Wire::Bytes(length) if head.number == TENSOR_RAW_DATA && length >= LARGE => {
                    if values.replace((self.at, length)).is_some() {
                        return Err(malformed("a tensor has its values once"));
                    }
                    self.skip(length)?;
                }
                _ => self.keep(&head, &mut tensor)?,
            }
        }
        self.ends(end)?;
        if let Some((offset, length)) = values {
            self.left_out += 1;
            let Some(name) = self.name else { return Ok(tensor) };
            let entries = [
                ("location", name.to_owned()),
                ("offset", offset.to_string()),
                ("length", length.to_string()),
            ];
            for (key, value) in entries {
                let mut entry = Vec::new();
                append(&mut entry, ENTRY_KEY, key.as_bytes());
                append(&mut entry, ENTRY_VALUE, value.as_bytes());
                append(&mut tensor, TENSOR_EXTERNAL_DATA, &entry);
            }
            varint(&mut tensor, TENSOR_DATA_LOCATION << 3);
            varint(&mut tensor, EXTERNAL);
        }
        Ok(tensor)
    }

    fn head(&mut self) -> io::Result<Head> {
        let mut bytes = Vec::with_capacity(20);
        let key = self.varint(&mut bytes)?;
        let wire = match key & 7 {
            0 => {
                self.varint(&mut bytes)?;
                Wire::Number
            }
            1 => Wire::Bytes(8),
            2 => Wire::Bytes(self.varint(&mut bytes)?),
            5 => Wire::Bytes(4),
            // Groups, which ONNX has none of.
            _ => return Err(malformed("a type of field that ONNX does not have")),
        };
        // A value of fixed length is no string, bytes or message.
        let number = if key & 7 == 2 { key >> 3 } else { 0 };
        Ok(Head { number, wire, bytes })
    }

    /// Appends a field as it stands in the file.
    fn keep(&mut self, head: &Head, to: &mut Vec<u8>) -> io::Result<()> {
        to.extend_from_slice(&head.bytes);
        if let Wire::Bytes(length) = head.wire {
            self.kept = self.kept.saturating_add(length);
            if self.kept > LONGEST_OUTLINE {
                return Err(malformed("more than weights"));
            }
            let read = self.file.by_ref().take(length).read_to_end(to)? as u64;
            self.at += read;
            if read < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let step = i64::try_from(length).map_err(|_| malformed("a length beyond all files"))?;
        self.file.seek_relative(step)?;
        self.at += length;
        Ok(())
    }

    fn varint(&mut self, bytes: &mut Vec<u8>) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            bytes.push(byte[0]);
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("a number of more than 64 bits"))
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        use io::BufRead;
        Ok(self.file.fill_buf()?.is_empty())
    }

    fn end(&self, length: u64) -> io::Result<u64> {
        self.at.checked_add(length).ok_or_else(|| malformed("a length beyond all files"))
    }

    /// Fields fill their message.
    fn ends(&self, end: u64) -> io::Result<()> {
        if self.at == end { Ok(()) } else { Err(malformed("a field that is longer than its message")) }
    }
}

fn append(to: &mut Vec<u8>, number: u64, value: &[u8]) {
    varint(to, number << 3 | 2);
    varint(to, value.len() as u64);
    to.extend_from_slice(value);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn field(number: u64, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, number, value);
        bytes
    }

    /// A tensor of this many bytes, with a dimension before them and a name behind.
    fn tensor(bytes: usize) -> Vec<u8> {
        [b"\x08\x07".to_vec(), field(TENSOR_RAW_DATA, &vec![7; bytes]), field(8, b"w")].concat()
    }

    fn outline(file: &[u8]) -> Option<Outline> {
        Outline::read(Cursor::new(file), Some("model.onnx")).unwrap()
    }

    #[test]
    fn a_large_weight_becomes_its_place_and_all_else_stays() {
        let node = field(1, b"\x22\x06MatMul");
        let small = field(GRAPH_INITIALIZER, &tensor(100));
        let large = field(GRAPH_INITIALIZER, &tensor(100_000));
        let (before, behind) = ([node.clone(), small.clone()].concat(), field(11, b"\x0a\x01x"));
        let graph = [&before[..], &large, &behind].concat();
        let (version, producer) = (b"\x08\x08".to_vec(), field(2, b"us"));
        let file = [&version[..], &field(MODEL_GRAPH, &graph), &producer].concat();
        let found = outline(&file).unwrap();
        assert_eq!(found.left_out, 1);
        let offset = file.windows(100_000).position(|bytes| bytes.iter().all(|byte| *byte == 7)).unwrap();
        let entry = |key: &str, value: &str| {
            field(TENSOR_EXTERNAL_DATA, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        let named = [
            &b"\x08\x07"[..],
            &field(8, b"w"),
            &entry("location", "model.onnx"),
            &entry("offset", &offset.to_string()),
            &entry("length", "100000"),
            b"\x70\x01",
        ];
        let graph = [&before[..], &field(GRAPH_INITIALIZER, &named.concat()), &behind].concat();
        assert_eq!(found.bytes, [&version[..], &field(MODEL_GRAPH, &graph), &producer].concat());
    }

    #[test]
    fn a_graph_without_large_weights_is_its_own_outline() {
        let graph = [field(1, b"\x22\x03Add"), field(GRAPH_INITIALIZER, &tensor(10))].concat();
        let file = [
            field(MODEL_GRAPH, &graph),
            b"\x2d\x01\x02\x03\x04\x31\x01\x02\x03\x04\x05\x06\x07\x08".to_vec(),
        ];
        let file = file.concat();
        assert_eq!(outline(&file), Some(Outline { bytes: file, left_out: 0 }));
    }

    #[test]
    fn a_file_that_is_no_graph_has_no_outline() {
        let graph = field(MODEL_GRAPH, &field(GRAPH_INITIALIZER, &tensor(100_000)));
        for cut in [1, 3, 5, 9, 20, graph.len() - 1] {
            assert_eq!(outline(&graph[..cut]), None, "{cut}");
        }
        let longer = [vec![b'\x3a', 5], field(GRAPH_INITIALIZER, b"123456")].concat();
        for file in [&b""[..], b"not a graph", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &longer] {
            assert_eq!(outline(file), None, "{file:?}");
        }
        assert_eq!(outline(&[graph.clone(), graph].concat()), None, "two graphs");
        let far =
            [b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
                .to_vec()]
            .concat();
        assert_eq!(outline(&far), None, "lengths beyond the file");
    }
}
