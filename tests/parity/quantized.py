"""Writes the matrices that ONNX Runtime's quantizer makes of one of the tiny models.

    python quantized.py

`pg_clip_embedder quantize` must make the same ones. Writes tests/data/golden/quantized.json.
"""

import json
import platform
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

DATA = Path(__file__).resolve().parents[1] / "data"
GRAPHS = ("transformers_js/onnx/vision_model.onnx", "immich/textual/model.onnx")


def main() -> None:
    graphs = {graph: matrices(DATA / "models" / graph) for graph in GRAPHS}
    versions = {module.__name__: module.__version__ for module in (onnx, onnxruntime)}
    header = {
        "what": "matrices in 8 bits as little-endian bytes of int8, and their scales as those of float32, by onnxruntime's "
        "quantize_dynamic; written by tests/parity/quantized.py",
        "versions": {"python": platform.python_version()} | versions,
    }
    (DATA / "golden/quantized.json").write_text(json.dumps(header | {"graphs": graphs}, indent=1) + "\n")


def matrices(path: Path) -> dict[str, dict]:
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            path, quantized, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"],
        )
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(quantized).graph.initializer}
    found = {}
    for name, values in tensors.items():
        if name.endswith("_quantized"):
            scales = tensors[name.removesuffix("_quantized") + "_scale"]
            found[name] = {"shape": values.shape, "values": values.tobytes().hex(), "scales": scales.tobytes().hex()}
    return found


if __name__ == "__main__":
    main()
