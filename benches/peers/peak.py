"""The fastest multiplications of the machine: python peak.py. The most of PyTorch's and ONNX Runtime's matrix multiplications."""

import json
import time
from typing import Callable

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

SIDE = 2048
TIMES = 5


def main() -> None:
    chance = np.random.default_rng(0)
    floats = [chance.standard_normal((SIDE, SIDE), np.float32) for _ in range(2)]
    a, b = map(torch.from_numpy, floats)
    fp32 = runtime("MatMul", TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT, floats)
    bytes_ = [chance.integers(0, 255, (SIDE, SIDE), np.uint8), chance.integers(-64, 63, (SIDE, SIDE), np.int8)]
    int8 = runtime("MatMulInteger", TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, bytes_)
    print(json.dumps({"fp32": max(rate(lambda: torch.mm(a, b)), rate(fp32)), "int8": rate(int8)}))


def runtime(operator: str, left: int, right: int, product: int, values: list[np.ndarray]) -> Callable[[], object]:
    """The right matrix is a weight, as in a model."""
    weight = helper.make_tensor("b", right, (SIDE, SIDE), values[1].tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])], operator,
        [helper.make_tensor_value_info("a", left, (SIDE, SIDE))], [helper.make_tensor_value_info("c", product, (SIDE, SIDE))],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": values[0]})


def rate(multiply: Callable[[], object]) -> float:
    """The best of some, in thousands of millions of multiplications and additions a second."""
    best = float("inf")
    for _ in range(TIMES + 1):
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best / 1e9


if __name__ == "__main__":
    main()
