//! The nodes and weights of a graph whose products are computed in 8 bits.
//!
//! A product becomes the same nodes as in ONNX Runtime's `quantize_dynamic`, which ONNX Runtime fuses again when it
//! loads the graph: `DynamicQuantizeLinear` of the value, `MatMulInteger` with the quantized matrix, a `Cast` of
//! the sums to f32, and a `Mul` with the scales of both. Products of one value share its `DynamicQuantizeLinear`.
//! Nodes and weights that no product needs any more are left out, and everything else is as it was.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use prost::Message;
use prost::bytes::Bytes;

use super::fields::head;
use super::graph::Graph;
use super::onnx::{self, Node, Tensor};
use super::products::{Found, Product, Weights};
use super::weights;

/// The new nodes and weights of a graph.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// As they stand in a graph.
    pub nodes: Vec<Bytes>,
    /// The names of the initializers that are left out.
    pub dropped: HashSet<String>,
    pub added: Vec<Added>,
}

/// A new initializer.
#[derive(Debug)]
pub(super) struct Added {
    pub tensor: Tensor,
    /// Whether its values are to be in a file, like the values that it was made of.
    pub outside: bool,
}

/// Makes the nodes and weights, or says which weights cannot be quantized.
pub(super) fn rewrite(graph: &Graph, found: &Found) -> Result<Rewritten, String> {
    let mut rewriter = Rewriter {
        graph,
        folder: graph.path.parent().unwrap_or(Path::new("")),
        tensors: graph.initializers_by_name(),
        names: names(graph),
        values: HashMap::new(),
        matrices: HashMap::new(),
        added: Vec::new(),
    };
    let chosen: HashMap<usize, &Product> =
        found.chosen.iter().map(|product| (product.node, product)).collect();
    let mut nodes = Vec::with_capacity(graph.nodes.len() + 4 * chosen.len());
    for (place, node) in graph.nodes.iter().enumerate() {
        match chosen.get(&place) {
            Some(product) => {
                let new = rewriter.product(&node.message, product)?;
                nodes.extend(new.into_iter().map(|node| (encoded(&node), node, false)));
            }
            None => nodes.push((node.bytes.clone(), node.message.clone(), found.between.contains(&place))),
        }
    }

    // Backwards, so that a node is looked at after all nodes that take its outputs.
    let mut taken: HashSet<String> = graph.outputs.iter().cloned().collect();
    let mut kept = Vec::with_capacity(nodes.len());
    for (bytes, node, may_go) in nodes.into_iter().rev() {
        if may_go && !node.outputs.iter().any(|name| taken.contains(name)) {
            continue;
        }
        taken.extend(node.taken().into_iter().map(str::to_owned));
        kept.push(bytes);
    }
    kept.reverse();
    let quantized = found.chosen.iter().map(|product| product.weights.tensor.clone());
    let dropped = quantized.filter(|name| !taken.contains(name)).collect();
    Ok(Rewritten { nodes: kept, dropped, added: rewriter.added })
}

struct Rewriter<'a> {
    graph: &'a Graph,
    /// Where the files of weights are.
    folder: &'a Path,
    tensors: HashMap<&'a str, &'a Tensor>,
    /// All names in the graph, which new ones must differ from.
    names: HashSet<String>,
    /// The names of values that are quantized, their scales and their zero points, by the names of the values.
    values: HashMap<String, [String; 3]>,
    /// The same of matrices, by the matrices and the bits of the values that they are multiplied by.
    matrices: HashMap<(Weights, u32), [String; 3]>,
    added: Vec<Added>,
}

impl Rewriter<'_> {
    /// The nodes that stand for a product.
    fn product(&mut self, node: &Node, product: &Product) -> Result<Vec<Node>, String> {
        let (Some(value), Some(output)) = (node.inputs.first(), node.outputs.first()) else {
            return Err(format!("{} has no input or no output", node.name));
        };
        let mut nodes = Vec::with_capacity(6);
        let [value, value_scale, value_zero] = match self.values.get(value) {
            Some(names) => names.clone(),
            None => {
                let names = self.fresh_three(value);
                nodes.push(Node::new(
                    "DynamicQuantizeLinear",
                    &[value],
                    &names.each_ref().map(String::as_str),
                ));
                self.values.insert(value.clone(), names.clone());
                names
            }
        };
        let [matrix, matrix_scale, matrix_zero] = self.matrix(product)?;
        let sums = self.fresh(&format!("{output}_sums"));
        let wide = self.fresh(&format!("{output}_wide"));
        let scale = self.fresh(&format!("{output}_scale"));
        let scaled = match product.bias {
            Some(_) => self.fresh(&format!("{output}_scaled")),
            None => output.clone(),
        };
        nodes.push(Node::new("MatMulInteger", &[&value, &matrix, &value_zero, &matrix_zero], &[&sums]));
        nodes.push(Node::new("Cast", &[&sums], &[&wide]).with_int("to", i64::from(onnx::FLOAT)));
        nodes.push(Node::new("Mul", &[&value_scale, &matrix_scale], &[&scale]));
        nodes.push(Node::new("Mul", &[&wide, &scale], &[&scaled]));
        if let Some(bias) = &product.bias {
            nodes.push(Node::new("Add", &[&scaled, bias], &[output]));
        }
        Ok(nodes)
    }

    /// The quantized matrix of a product, which is added where it is not there yet.
    fn matrix(&mut self, product: &Product) -> Result<[String; 3], String> {
        let key = (product.weights.clone(), product.alpha.to_bits());
        if let Some(names) = self.matrices.get(&key) {
            return Ok(names.clone());
        }
        let weights = &product.weights;
        let of_node = |place: usize| {
            let node = &self.graph.nodes.get(place)?.message;
            node.attribute("value")?.tensor.as_ref()
        };
        let tensor = match weights.constant {
            Some(place) => of_node(place),
            None => self.tensors.get(weights.tensor.as_str()).copied(),
        };
        let tensor = tensor.ok_or_else(|| format!("tensor {} is missing", weights.tensor))?;
        let quantized = weights::quantize(&weights::values(tensor, self.folder)?, weights, product.alpha)?;
        let outside = tensor.is_external();
        let names = self.fresh_three(&weights.tensor);
        let [matrix, scale, zero] = &names;
        let scales = quantized.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let columns = weights.columns;
        self.added.extend([
            Added {
                tensor: Tensor::inside(matrix, onnx::INT8, &[weights.rows, columns], quantized.values),
                outside,
            },
            Added { tensor: Tensor::inside(scale, onnx::FLOAT, &[columns], scales), outside: false },
            Added { tensor: Tensor::inside(zero, onnx::INT8, &[columns], vec![0; columns]), outside: false },
        ]);
        self.matrices.insert(key, names.clone());
        Ok(names)
    }

    fn fresh_three(&mut self, name: &str) -> [String; 3] {
        ["quantized", "scale", "zero_point"].map(|part| self.fresh(&format!("{name}_{part}")))
    }

    /// A name that is not in the graph.
    fn fresh(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let name = std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(|name| !self.names.contains(name))
            .expect("numbers do not end");
        self.names.insert(name.clone());
        name
    }
}

fn names(graph: &Graph) -> HashSet<String> {
    let mut names: HashSet<String> = graph.outputs.iter().cloned().collect();
    for node in &graph.nodes {
        names.extend(node.message.taken().into_iter().map(str::to_owned));
        names.extend(node.message.outputs.iter().cloned());
    }
    names.extend(graph.initializers.iter().map(|read| read.message.name.clone()));
    names
}

/// A node as it stands in a graph.
fn encoded(node: &Node) -> Bytes {
    let value = node.encode_to_vec();
    [&head(onnx::GRAPH_NODE, value.len())[..], &value].concat().into()
}
