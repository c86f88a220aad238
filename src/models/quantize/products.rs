//! Which products of a graph are computed in 8 bits.
//!
//! Candidates are products of a value and a constant matrix, `MatMul` and `Gemm`. Two kinds of them stay as they
//! are: the products of the first transformer block, whose error passes through all others, and the last ones,
//! whose error no later block evens out. In a ViT-B/32 of random weights, a mean cosine to full precision of 0.9932
//! (images) and 0.9977 (texts) becomes 0.9965 and 0.9991, most of it by the first block; a run takes 1 % (images)
//! to 10 % (texts) more processor time. With the second block, 0.9983 and 0.9994 for 3 % to 6 % more.
//!
//! The first block is found by shapes, since exporters name nodes as they like: it ends where a product narrows a
//! value that another one has widened, the end of its two-layer perceptron. A tower of a single block has all but
//! its last products quantized.

use std::collections::{HashMap, HashSet};

use super::graph::Graph;
use super::onnx::{self, Node, Tensor};

/// A product of a value `[…, rows]` and a constant matrix `[rows, columns]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Product {
    /// The place of its node.
    pub node: usize,
    pub weights: Weights,
    /// The factor of the product, as `Gemm` has it.
    pub alpha: f32,
    /// The name of the value that is added to it, as `Gemm` has it.
    pub bias: Option<String>,
}

/// A constant matrix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Weights {
    /// The name of the tensor that it comes from, and the place of the node that holds it, if that is no initializer.
    pub tensor: String,
    pub constant: Option<usize>,
    /// Whether the tensor is `[columns, rows]`.
    pub transposed: bool,
    pub rows: usize,
    pub columns: usize,
}

/// The products of a graph.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The products to be quantized.
    pub chosen: Vec<Product>,
    /// The places of the nodes between tensors and chosen products, such as casts.
    pub between: HashSet<usize>,
    /// How many products of the same kind stay.
    pub kept: usize,
    /// Whether it has products of the same kind that are computed with fp16.
    pub has_half_products: bool,
}

/// Operators of a graph that is quantized, with those that ONNX Runtime adds.
const QUANTIZED: [&str; 17] = [
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "MatMulBnb4",
    "MatMulFpQ4",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QMoE",
    "QOrderedMatMul",
    "QuantizeLinear",
];

/// `DynamicQuantizeLinear` came with it.
const LEAST_OPERATORS: i64 = 11;

/// Finds the products of a graph, or says why there cannot be any.
pub(super) fn find(graph: &Graph) -> Result<Found, String> {
    let quantized = graph.nodes.iter().find(|node| QUANTIZED.contains(&node.message.operator.as_str()));
    if let Some(node) = quantized {
        return Err(format!("it is quantized already, it has {}", node.message.operator));
    }
    if graph.operators < LEAST_OPERATORS {
        return Err(format!(
            "it is of ONNX's operator set {}, and quantized operators need {LEAST_OPERATORS}",
            graph.operators
        ));
    }
    let constants = Constants::of(graph);
    let mut products = Vec::new();
    let mut between: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut has_half_products = false;
    for (place, node) in graph.nodes.iter().enumerate() {
        let Some((product, path, element)) = constants.product(place, &node.message) else { continue };
        if element == onnx::FLOAT {
            between.insert(place, path);
            products.push(product);
        } else {
            has_half_products = true;
        }
    }
    let total = products.len();
    let chosen = choose(graph, products);
    let between = chosen.iter().flat_map(|product| between[&product.node].iter().copied()).collect();
    Ok(Found { kept: total - chosen.len(), chosen, between, has_half_products })
}

/// Leaves the last products out, and the first block where other blocks follow.
fn choose(graph: &Graph, products: Vec<Product>) -> Vec<Product> {
    let by_node: HashMap<usize, &Product> = products.iter().map(|product| (product.node, product)).collect();
    // Of each value, whether a product widened a value that it depends on, and whether another one narrowed that again.
    let (mut widened, mut narrowed) = (HashSet::new(), HashSet::new());
    let mut first = HashSet::new();
    for (place, node) in graph.nodes.iter().enumerate() {
        let (taken, outputs) = (node.message.taken(), node.message.outputs.iter().map(String::as_str));
        let mut wide = taken.iter().any(|name| widened.contains(name));
        let mut narrow = taken.iter().any(|name| narrowed.contains(name));
        if let Some(Product { weights, .. }) = by_node.get(&place) {
            if !narrow {
                first.insert(place);
            }
            narrow |= wide && weights.columns < weights.rows;
            wide |= weights.columns > weights.rows;
        }
        if wide {
            widened.extend(outputs.clone());
        }
        if narrow {
            narrowed.extend(outputs);
        }
    }
    // Of each value, whether a product depends on it.
    let mut leads = HashSet::new();
    let mut last = HashSet::new();
    for (place, node) in graph.nodes.iter().enumerate().rev() {
        let leading = node.message.outputs.iter().any(|name| leads.contains(name.as_str()));
        let is_product = by_node.contains_key(&place);
        if is_product && !leading {
            last.insert(place);
        }
        if is_product || leading {
            leads.extend(node.message.taken());
        }
    }
    let (middle, ends): (Vec<Product>, Vec<Product>) = products
        .into_iter()
        .filter(|product| !last.contains(&product.node))
        .partition(|product| !first.contains(&product.node));
    if middle.is_empty() { ends } else { middle }
}

/// The values of a graph that do not depend on its inputs, as far as they may be matrices.
struct Constants<'a> {
    initializers: HashMap<&'a str, &'a Tensor>,
    makers: HashMap<&'a str, (usize, &'a Node)>,
}

impl<'a> Constants<'a> {
    fn of(graph: &'a Graph) -> Constants<'a> {
        let makers = graph.nodes.iter().enumerate().flat_map(|(place, node)| {
            node.message.outputs.iter().map(move |name| (name.as_str(), (place, &node.message)))
        });
        Constants { initializers: graph.initializers_by_name(), makers: makers.collect() }
    }

    /// The product that a node is, the places of the nodes between its tensor and itself, and its element type.
    fn product(&self, place: usize, node: &Node) -> Option<(Product, Vec<usize>, i32)> {
        let (alpha, bias, transposed) = if node.is("MatMul") {
            (1.0, None, false)
        } else if node.is("Gemm") {
            let int = |name: &str| node.attribute(name).map_or(0, |attribute| attribute.int);
            let float = |name: &str| node.attribute(name).map_or(1.0, |attribute| attribute.float);
            let bias = node.inputs.get(2).filter(|name| !name.is_empty()).cloned();
            if int("transA") != 0 || (bias.is_some() && float("beta") != 1.0) {
                return None;
            }
            (float("alpha"), bias, int("transB") != 0)
        } else {
            return None;
        };
        let [value, matrix] = node.inputs.first_chunk()?;
        if self.tensor(value).is_some() {
            return None;
        }
        let found = self.tensor(matrix)?;
        let transposed = transposed != found.transposed;
        let [first, second] = found.tensor.shape[..] else { return None };
        let (first, second) = (usize::try_from(first).ok()?, usize::try_from(second).ok()?);
        let (rows, columns) = if transposed { (second, first) } else { (first, second) };
        if rows == 0 || columns == 0 {
            return None;
        }
        let weights = Weights { tensor: found.name, constant: found.constant, transposed, rows, columns };
        Some((Product { node: place, weights, alpha, bias }, found.between, found.element))
    }

    /// The tensor that a value is, perhaps transposed or widened.
    fn tensor(&self, value: &str) -> Option<Constant<'a>> {
        let (mut name, mut between, mut transposed, mut widened) = (value, Vec::new(), false, false);
        loop {
            let (tensor, constant) = match self.initializers.get(name) {
                Some(tensor) => (*tensor, None),
                None => {
                    let (place, node) = *self.makers.get(name)?;
                    if between.contains(&place) {
                        return None;
                    }
                    between.push(place);
                    if node.is("Constant") {
                        (node.attribute("value")?.tensor.as_ref()?, Some(place))
                    } else {
                        if node.is("Transpose") {
                            let turns = |axes: &[i64]| axes.is_empty() || axes == [1, 0];
                            if !node.attribute("perm").is_none_or(|axes| turns(&axes.ints)) {
                                return None;
                            }
                            transposed = !transposed;
                        } else if node.is("Cast") {
                            // A narrower type would round the values.
                            if node.attribute("to")?.int != i64::from(onnx::FLOAT) {
                                return None;
                            }
                            widened = true;
                        } else if !node.is("Identity") {
                            return None;
                        }
                        name = node.inputs.first()?;
                        continue;
                    }
                }
            };
            let element = match tensor.element {
                onnx::FLOAT => onnx::FLOAT,
                onnx::FLOAT16 | onnx::BFLOAT16 if widened => onnx::FLOAT,
                onnx::FLOAT16 | onnx::BFLOAT16 => tensor.element,
                _ => return None,
            };
            return Some(Constant { name: name.to_owned(), tensor, constant, transposed, between, element });
        }
    }
}

struct Constant<'a> {
    name: String,
    tensor: &'a Tensor,
    constant: Option<usize>,
    transposed: bool,
    between: Vec<usize>,
    element: i32,
}
