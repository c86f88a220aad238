//! The messages of an ONNX file, as far as they are looked into.
//!
//! Numbers and types are those of `onnx.proto`, IR version 13. Fields that are not listed here are dropped by
//! decoding: so the bytes that were read are written again, see [`super::fields`], and never one of these messages
//! encoded after it was decoded. Only nodes and tensors that are new are encoded.

use std::collections::HashMap;
use std::path::{Component, Path};

use prost::Message;
use prost::bytes::Bytes;

/// `ModelProto.graph` and `ModelProto.opset_import`.
pub(super) const MODEL_GRAPH: u32 = 7;
pub(super) const MODEL_OPSETS: u32 = 8;
/// `GraphProto.node`, `.initializer` and `.input`.
pub(super) const GRAPH_NODE: u32 = 1;
pub(super) const GRAPH_INITIALIZER: u32 = 5;
pub(super) const GRAPH_INPUT: u32 = 11;
pub(super) const GRAPH_OUTPUT: u32 = 12;
/// `TensorProto.external_data`.
pub(super) const TENSOR_EXTERNAL_DATA: u32 = 13;

/// `TensorProto.DataType`.
pub(super) const FLOAT: i32 = 1;
pub(super) const INT8: i32 = 3;
pub(super) const FLOAT16: i32 = 10;
pub(super) const BFLOAT16: i32 = 16;

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;
/// `AttributeProto.AttributeType`.
const ATTRIBUTE_INT: i32 = 2;

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
}

/// Of an input or output of a graph.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub operator: String,
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub float: f32,
    #[prost(int64, tag = "3")]
    pub int: i64,
    #[prost(message, optional, tag = "5")]
    pub tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    pub graph: Option<Graph>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub graphs: Vec<Graph>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub shape: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub element: i32,
    #[prost(float, repeated, tag = "4")]
    pub floats: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub ints: Vec<i32>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "bytes", tag = "9")]
    pub raw: Bytes,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub location: i32,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

impl Node {
    /// A node of ONNX's own operators, named after its first output.
    pub(super) fn new(operator: &str, inputs: &[&str], outputs: &[&str]) -> Node {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Node {
            inputs: owned(inputs),
            outputs: owned(outputs),
            name: outputs.first().map_or_else(String::new, |output| format!("{output}/{operator}")),
            operator: operator.to_owned(),
            ..Node::default()
        }
    }

    /// The same with an attribute.
    pub(super) fn with_int(mut self, name: &str, int: i64) -> Node {
        self.attributes.push(Attribute {
            name: name.to_owned(),
            int,
            kind: ATTRIBUTE_INT,
            ..Attribute::default()
        });
        self
    }

    /// Whether it is this one of ONNX's own operators.
    pub(super) fn is(&self, operator: &str) -> bool {
        self.operator == operator && ["", "ai.onnx"].contains(&self.domain.as_str())
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    /// The names of all values that it takes, with those that the graphs inside it take from outside.
    pub(super) fn taken(&self) -> Vec<&str> {
        let mut taken: Vec<&str> = self.inputs.iter().map(String::as_str).collect();
        for attribute in &self.attributes {
            for graph in attribute.graph.iter().chain(&attribute.graphs) {
                taken.extend(graph.nodes.iter().flat_map(Node::taken));
            }
        }
        taken.retain(|name| !name.is_empty());
        taken
    }
}

impl Tensor {
    /// A tensor whose values lie in the graph.
    pub(super) fn inside(name: &str, element: i32, shape: &[usize], raw: Vec<u8>) -> Tensor {
        Tensor {
            shape: shape.iter().map(|size| *size as i64).collect(),
            element,
            name: name.to_owned(),
            raw: raw.into(),
            ..Tensor::default()
        }
    }

    pub(super) fn is_external(&self) -> bool {
        self.location == EXTERNAL
    }

    /// The same with its values in a file beside the graph.
    pub(super) fn moved_out(mut self, place: &External) -> Tensor {
        self.raw = Bytes::new();
        self.location = EXTERNAL;
        self.external_data = place.entries();
        self
    }

    /// Where its values are, if they lie in a file beside the graph.
    pub(super) fn external(&self) -> Result<External, String> {
        let entries: HashMap<&str, &str> =
            self.external_data.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
        let number = |key: &str| {
            let value = entries.get(key).map(|text| text.parse::<u64>()).transpose();
            value.map_err(|_| format!("the {key} of tensor {} is no number", self.name))
        };
        let location = entries.get("location").copied().unwrap_or_default();
        let mut parts = Path::new(location).components();
        if location.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!(
                "the values of tensor {} are in {location}, outside of its folder",
                self.name
            ));
        }
        Ok(External {
            location: location.to_owned(),
            offset: number("offset")?.unwrap_or(0),
            length: number("length")?,
        })
    }
}

/// Where the values of a tensor are, in a file beside the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct External {
    pub location: String,
    /// In bytes.
    pub offset: u64,
    /// In bytes; none where they are the rest of the file.
    pub length: Option<u64>,
}

impl External {
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![("location", self.location.clone()), ("offset", self.offset.to_string())];
        entries.extend(self.length.map(|length| ("length", length.to_string())));
        entries.into_iter().map(|(key, value)| Entry { key: key.to_owned(), value }).collect()
    }
}
