"""Models with an image tower of ViT-B/32's size, of random weights, in 32-bit and in 16-bit floats.

Texts have the demo model's tower. How long a multiplication takes does not depend on its numbers.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

DEMO = Path(__file__).resolve().parents[2] / "models/demo"
LAYERS, WIDTH, HEADS, PATCH, SIDE, DIMENSIONS = 12, 768, 12, 32, 224, 512
TOKENS = (SIDE // PATCH) ** 2


def make(folder: Path) -> dict[str, Path]:
    """The folders of the models by their names, made unless they are there."""
    models = {"fp32": folder / "fp32", "fp16": folder / "fp16"}
    wide = image_tower()
    for name, place in models.items():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(DEMO, place, ignore=shutil.ignore_patterns("photos", "training", "vision_model.onnx"))
        onnx.save(wide if name == "fp32" else convert_float_to_float16(wide, keep_io_types=False), place / "vision_model.onnx")
    return models


def image_tower() -> onnx.ModelProto:
    """A transformer over patches, whose mean is projected. CLIP's has one token more, which stands for the mean."""
    chance, weights, nodes = np.random.default_rng(1), [], []

    def weight(*shape: int, scale: float) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(chance.normal(0, scale, shape).astype(np.float32), name))
        return name

    def constant(value: np.ndarray) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, *inputs: str, **attributes) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"v{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def product(value: str, wide: int, narrow: int) -> str:
        return node("Add", node("MatMul", value, weight(wide, narrow, scale=wide**-0.5)), weight(narrow, scale=0.1))

    def norm(value: str) -> str:
        one, zero = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        return node("LayerNormalization", value, constant(one), constant(zero), axis=-1)

    def heads(value: str, order: list[int]) -> str:
        split = node("Reshape", value, constant(np.array([0, TOKENS, HEADS, WIDTH // HEADS])))
        return node("Transpose", split, perm=order)

    patches = node("Conv", "pixel_values", weight(WIDTH, 3, PATCH, PATCH, scale=0.02), strides=[PATCH, PATCH])
    row = node("Transpose", node("Reshape", patches, constant(np.array([0, WIDTH, TOKENS]))), perm=[0, 2, 1])
    value = norm(node("Add", row, weight(TOKENS, WIDTH, scale=0.02)))
    scale, sharpness = constant(np.float32((WIDTH // HEADS) ** -0.5)), constant(np.float32(1.702))
    for _ in range(LAYERS):
        normed = norm(value)
        query, key, seen = (product(normed, WIDTH, WIDTH) for _ in range(3))
        scores = node("MatMul", heads(query, [0, 2, 1, 3]), heads(key, [0, 2, 3, 1]))
        attended = node("MatMul", node("Softmax", node("Mul", scores, scale), axis=-1), heads(seen, [0, 2, 1, 3]))
        joined = node("Reshape", node("Transpose", attended, perm=[0, 2, 1, 3]), constant(np.array([0, TOKENS, WIDTH])))
        value = node("Add", value, product(joined, WIDTH, WIDTH))
        inner = product(norm(value), WIDTH, 4 * WIDTH)
        inner = node("Mul", inner, node("Sigmoid", node("Mul", inner, sharpness)))
        value = node("Add", value, product(inner, 4 * WIDTH, WIDTH))
    mean = node("ReduceMean", norm(value), axes=[1], keepdims=0)
    nodes.append(helper.make_node("MatMul", [mean, weight(WIDTH, DIMENSIONS, scale=WIDTH**-0.5)], ["image_embeds"]))
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    embeds = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", DIMENSIONS])
    graph = helper.make_graph(nodes, "image", [pixels], [embeds], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
