//! Graphs before and after, without ONNX Runtime.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;
use serde_json::Value;

use super::fields::head;
use super::graph::Graph;
use super::onnx::{self, Attribute, Node, OperatorSet, Tensor, ValueInfo};
use super::products::{self, Found, Weights};
use super::rewrite::{Rewritten, rewrite};
use super::{new_path, weights};

/// A graph of nodes and of initializers `[rows, columns]` of ones.
struct Sketch {
    nodes: Vec<Node>,
    matrices: Vec<(&'static str, [usize; 2])>,
    output: &'static str,
    operators: i64,
}

impl Sketch {
    fn new(nodes: Vec<Node>, matrices: &[(&'static str, [usize; 2])], output: &'static str) -> Sketch {
        Sketch { nodes, matrices: matrices.to_vec(), output, operators: 17 }
    }

    fn graph(&self) -> Graph {
        let mut graph = Vec::new();
        let mut add = |number: u32, value: Vec<u8>| {
            graph.extend_from_slice(&head(number, value.len()));
            graph.extend_from_slice(&value);
        };
        self.nodes.iter().for_each(|node| add(onnx::GRAPH_NODE, node.encode_to_vec()));
        for (name, shape) in &self.matrices {
            let raw = 1_f32.to_le_bytes().repeat(shape[0] * shape[1]);
            add(onnx::GRAPH_INITIALIZER, Tensor::inside(name, onnx::FLOAT, shape, raw).encode_to_vec());
        }
        add(onnx::GRAPH_OUTPUT, ValueInfo { name: self.output.to_owned() }.encode_to_vec());
        let set = OperatorSet { domain: String::new(), version: self.operators }.encode_to_vec();
        let fields = [(onnx::MODEL_OPSETS, set), (onnx::MODEL_GRAPH, graph)];
        let model = fields.map(|(number, value)| [&head(number, value.len())[..], &value].concat());
        Graph::parse(Path::new("sketch.onnx"), model.concat().into()).unwrap()
    }
}

fn product(value: &str, matrix: &str, output: &str) -> Node {
    Node::new("MatMul", &[value, matrix], &[output])
}

/// The names of the matrices whose products are quantized.
fn chosen(found: &Found) -> Vec<&str> {
    found.chosen.iter().map(|product| product.weights.tensor.as_str()).collect()
}

/// The nodes after quantization.
fn nodes(rewritten: &Rewritten) -> Vec<Node> {
    let node = |bytes: &Bytes| super::fields::split(bytes).unwrap().remove(0).value;
    rewritten.nodes.iter().map(|bytes| Node::decode(node(bytes)).unwrap()).collect()
}

fn operators(rewritten: &Rewritten) -> Vec<String> {
    nodes(rewritten).into_iter().map(|node| node.operator).collect()
}

/// Two blocks of query, key, value and a perceptron, and a projection.
fn two_blocks() -> Sketch {
    let mut nodes = Vec::new();
    let mut matrices = Vec::new();
    for (block, value, next) in [("1", "x0", "x1"), ("2", "x1", "x2")] {
        let name = |part: &str| -> &'static str { format!("{part}{block}").leak() };
        for part in ["q", "k", "v"] {
            nodes.push(product(value, name(part), name(&format!("{part}_out"))));
            matrices.push((name(part), [4, 4]));
        }
        nodes.push(Node::new("Attend", &[name("q_out"), name("k_out"), name("v_out")], &[name("a")]));
        nodes.push(product(name("a"), name("up"), name("wide")));
        nodes.push(product(name("wide"), name("down"), next));
        matrices.extend([(name("up"), [4, 16]), (name("down"), [16, 4])]);
    }
    nodes.push(product("x2", "projection", "embedding"));
    matrices.push(("projection", [4, 8]));
    Sketch::new(nodes, &matrices, "embedding")
}

#[test]
fn the_first_block_and_the_last_product_stay() {
    let found = products::find(&two_blocks().graph()).unwrap();
    assert_eq!(chosen(&found), ["q2", "k2", "v2", "up2", "down2"]);
    assert_eq!(found.kept, 6);
}

#[test]
fn of_a_single_block_only_the_last_product_stays() {
    let sketch = Sketch::new(
        vec![
            product("x", "up", "wide"),
            product("wide", "down", "y"),
            product("y", "projection", "embedding"),
        ],
        &[("up", [4, 16]), ("down", [16, 4]), ("projection", [4, 8])],
        "embedding",
    );
    assert_eq!(chosen(&products::find(&sketch.graph()).unwrap()), ["up", "down"]);
}

#[test]
fn patches_that_are_narrowed_are_no_block() {
    let mut sketch = two_blocks();
    sketch.nodes.insert(0, product("pixels", "patches", "x0"));
    sketch.matrices.push(("patches", [48, 4]));
    assert_eq!(chosen(&products::find(&sketch.graph()).unwrap()), ["q2", "k2", "v2", "up2", "down2"]);
}

#[test]
fn products_of_one_value_share_its_quantization() {
    let graph = two_blocks().graph();
    let rewritten = rewrite(&graph, &products::find(&graph).unwrap()).unwrap();
    let count = |operator: &str| operators(&rewritten).iter().filter(|name| *name == operator).count();
    assert_eq!(["DynamicQuantizeLinear", "MatMulInteger", "MatMul"].map(count), [3, 5, 6]);
    let mut made = std::collections::HashSet::from(["x0".to_owned()]);
    made.extend(graph.initializers.iter().map(|read| read.message.name.clone()));
    made.extend(rewritten.added.iter().map(|added| added.tensor.name.clone()));
    for node in nodes(&rewritten) {
        assert!(node.taken().iter().all(|name| made.contains(*name)), "{node:?} comes too early");
        assert!(node.outputs.into_iter().all(|name| made.insert(name)), "a name is taken twice");
    }
    let mut dropped: Vec<&String> = rewritten.dropped.iter().collect();
    dropped.sort();
    assert_eq!(dropped, ["down2", "k2", "q2", "up2", "v2"]);
}

#[test]
fn a_matrix_of_two_products_is_quantized_once_and_kept_where_it_is_needed() {
    let sketch = Sketch::new(
        vec![
            product("x", "w", "y"),
            product("y", "w", "z"),
            Node::new("Add", &["z", "w"], &["sum"]),
            product("sum", "projection", "embedding"),
        ],
        &[("w", [4, 4]), ("projection", [4, 8])],
        "embedding",
    );
    let graph = sketch.graph();
    let rewritten = rewrite(&graph, &products::find(&graph).unwrap()).unwrap();
    let matrices: Vec<&str> = rewritten.added.iter().map(|added| added.tensor.name.as_str()).collect();
    assert_eq!(matrices, ["w_quantized", "w_scale", "w_zero_point"]);
    assert!(rewritten.dropped.is_empty());
}

#[test]
fn a_graph_inside_a_node_keeps_its_inputs() {
    let inside = onnx::Graph { nodes: vec![Node::new("Identity", &["w"], &["inner"])] };
    let mut branch = Node::new("If", &["condition"], &["branched"]);
    branch.attributes.push(Attribute {
        name: "then_branch".to_owned(),
        graph: Some(inside),
        ..Attribute::default()
    });
    let sketch = Sketch::new(
        vec![branch, product("x", "w", "y"), product("y", "projection", "embedding")],
        &[("w", [4, 4]), ("projection", [4, 8])],
        "embedding",
    );
    let graph = sketch.graph();
    let found = products::find(&graph).unwrap();
    assert_eq!(chosen(&found), ["w"]);
    assert!(rewrite(&graph, &found).unwrap().dropped.is_empty());
}

#[test]
fn a_gemm_is_a_product_and_a_sum() {
    let gemm = |name: &str, value: i64| Node::new("Gemm", &["x", "w", "bias"], &["y"]).with_int(name, value);
    let sketch = |node: Node| {
        let matrices = [("w", [8, 4]), ("bias", [1, 8]), ("projection", [8, 8])];
        Sketch::new(vec![node, product("y", "projection", "embedding")], &matrices, "embedding").graph()
    };
    let graph = sketch(gemm("transB", 1));
    let found = products::find(&graph).unwrap();
    let rewritten = rewrite(&graph, &found).unwrap();
    assert_eq!(
        operators(&rewritten),
        ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul", "Add", "MatMul"]
    );
    assert_eq!(rewritten.added[0].tensor.shape, [4, 8]);
    assert!(!rewritten.dropped.contains("bias"));
    // A product that is not plain stays.
    assert!(products::find(&sketch(gemm("transA", 1))).unwrap().chosen.is_empty());
    let mut scaled = gemm("transB", 1);
    scaled.attributes.push(Attribute { name: "beta".to_owned(), float: 0.5, ..Attribute::default() });
    assert!(products::find(&sketch(scaled)).unwrap().chosen.is_empty());
}

#[test]
fn halves_that_are_widened_are_quantized_and_halves_that_are_not_are_left() {
    let graph = |widen: bool| {
        let mut nodes = vec![product("y", "projection", "embedding")];
        if widen {
            nodes.insert(0, product("x", "w_wide", "y"));
            let cast = Node::new("Cast", &["w"], &["w_turned"]).with_int("to", i64::from(onnx::FLOAT));
            nodes.insert(0, Node::new("Transpose", &["w_turned"], &["w_wide"]));
            nodes.insert(0, cast);
        } else {
            nodes.insert(0, product("x", "w", "y"));
        }
        let sketch = Sketch::new(nodes, &[("projection", [8, 8])], "embedding");
        let mut graph = sketch.graph();
        let halves = half::f16::ONE.to_le_bytes().repeat(32);
        let message = Tensor::inside("w", onnx::FLOAT16, &[8, 4], halves);
        graph.initializers.push(super::graph::Read { bytes: message.encode_to_vec().into(), message });
        graph
    };
    let widened = graph(true);
    let rewritten = rewrite(&widened, &products::find(&widened).unwrap()).unwrap();
    assert_eq!(
        operators(&rewritten)[0],
        "DynamicQuantizeLinear",
        "the cast that widened the weights is gone"
    );
    assert_eq!(rewritten.added[0].tensor.shape, [4, 8]);
    assert!(rewritten.dropped.contains("w"));
    let found = products::find(&graph(false)).unwrap();
    assert!(found.has_half_products && found.chosen.is_empty(), "{found:?}");
}

#[test]
fn a_graph_that_cannot_be_quantized_is_refused() {
    let mut sketch = two_blocks();
    sketch.operators = 10;
    assert!(products::find(&sketch.graph()).unwrap_err().contains("operator set 10"));
    let mut sketch = two_blocks();
    sketch.nodes.push(Node::new("MatMulInteger", &["a", "b"], &["c"]));
    assert!(products::find(&sketch.graph()).unwrap_err().contains("quantized already"));
    let without = Sketch::new(vec![Node::new("MatMul", &["x", "y"], &["embedding"])], &[], "embedding");
    assert!(products::find(&without.graph()).unwrap().chosen.is_empty());
}

#[test]
fn bytes_that_are_no_graph_are_refused() {
    for bytes in [&b""[..], b"no graph", b"\x3a\x02\x0a\x7f", b"\x3a\x00\x3a\x00"] {
        let error = Graph::parse(Path::new("x"), Bytes::from_static(bytes)).unwrap_err();
        assert!(error.contains("no ONNX graph"), "{error}");
    }
}

#[test]
fn files_are_called_as_exporters_call_them() {
    for (old, new) in [
        ("onnx/vision_model.onnx", "onnx/vision_model_int8.onnx"),
        ("visual_fp32.onnx", "visual_int8.onnx"),
        ("clip-visual-float32.onnx", "clip-visual-float32_int8.onnx"),
    ] {
        assert_eq!(new_path(old), new);
    }
}

/// `tests/parity/quantized.py` wrote the expected values.
#[test]
fn matrices_equal_those_of_onnx_runtimes_quantizer() {
    let data = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/data");
    let golden: Value =
        serde_json::from_slice(&fs::read(data.join("golden/quantized.json")).unwrap()).unwrap();
    let mut compared = 0;
    for (path, matrices) in golden["graphs"].as_object().unwrap() {
        let graph = Graph::read(&data.join("models").join(path)).unwrap();
        let tensors: HashMap<&str, &Tensor> = graph.initializers_by_name();
        for (name, expected) in matrices.as_object().unwrap() {
            let name = name.strip_suffix("_quantized").unwrap();
            let (name, transposed) =
                name.strip_suffix("_Transposed").map_or((name, false), |name| (name, true));
            let shape = &expected["shape"];
            let [rows, columns] = [0, 1].map(|axis| shape[axis].as_u64().unwrap() as usize);
            let weights = Weights { tensor: name.to_owned(), constant: None, transposed, rows, columns };
            let values = weights::values(tensors[name], Path::new("")).unwrap();
            let quantized = weights::quantize(&values, &weights, 1.0).unwrap();
            let scales: Vec<u8> = quantized.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            assert_eq!(expected["values"], hex::encode(&quantized.values), "{path}, {name}");
            assert_eq!(expected["scales"], hex::encode(scales), "{path}, {name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 12);
}
