"""ONNX graphs out of PyTorch modules, small and always the same."""

from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

# The fused attention has no ONNX operator.
torch.backends.mha.set_fastpath_enabled(False)

SEQUENCES = ("input_ids", "attention_mask", "token_type_ids")


class ByName(torch.nn.Module):
    """A module of transformers, of whose outputs those of these names are wanted."""

    def __init__(self, module: torch.nn.Module, *names: str) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = dict(zip(self.inputs, values))
        if not hasattr(self.module, "visual_projection") or len(inputs) > 2:
            found = self.module(**inputs)
        elif "pixel_values" in inputs:
            found = self.module.vision_model(**inputs)
            found["image_embeds"] = self.module.visual_projection(found.pooler_output)
        else:
            found = self.module.text_model(**inputs)
            found["text_embeds"] = self.module.text_projection(found.pooler_output)
        return tuple(found[name] for name in self.names)


class Dynamic(torch.nn.Module):
    """A function over a module, whose weights go with it."""

    def __init__(self, function: Callable[..., torch.Tensor], module: torch.nn.Module) -> None:
        super().__init__()
        self.function, self.module, self.names = function, module, ("output",)

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return self.function(*values)


def export(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], path: Path, outputs: list[str] | None = None, fixed: bool = False,
    fixed_sequence: bool = False,
) -> None:
    """Writes a graph. Batch and sequence are dynamic, unless `fixed` (both, and the batch is 1) or `fixed_sequence`."""
    # The exporter leaves a module as it found it, and one that was just made would train.
    module.eval()
    module.inputs, outputs = list(inputs), outputs or list(module.names)
    if fixed:
        inputs = {name: value[:1] for name, value in inputs.items()}
    axes = {}
    if not fixed:
        batches = {name: "image_batch_size" if name == "pixel_values" else "text_batch_size" for name in inputs}
        axes = {name: {0: batch} for name, batch in batches.items()}
        axes |= {name: {0: "text_batch_size" if name.startswith("text") else "image_batch_size"} for name in outputs}
        if not fixed_sequence:
            axes |= {name: {0: "text_batch_size", 1: "sequence_length"} for name in inputs if name in SEQUENCES}
            axes |= {name: {0: "image_batch_size", 2: "height", 3: "width"} for name in inputs if name == "pixel_values"}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        module, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=outputs, dynamic_axes=axes, opset_version=17,
        dynamo=False,
    )
    graph = onnx.load(path)
    shorten(graph.graph)
    onnx.save(graph, path)


def shorten(graph: onnx.GraphProto) -> None:
    """Takes out the names that only people read: they are half of a tiny graph."""
    kept = {value.name for value in [*graph.input, *graph.output]}
    names: dict[str, str] = {}
    short = lambda name: name if not name or name in kept else names.setdefault(name, f"v{len(names)}")
    for initializer in graph.initializer:
        initializer.name = short(initializer.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.value_info[:]


def half(path: Path) -> None:
    """Stores the weights as fp16; the graph itself widens them."""
    model = onnx.load(path)
    wide = {}
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype == np.float32:
            initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), initializer.name))
            wide[initializer.name] = f"{initializer.name}w"
    nodes = [helper.make_node("Cast", [name], [output], to=onnx.TensorProto.FLOAT) for name, output in wide.items()]
    for node in model.graph.node:
        node.input[:] = [wide.get(name, name) for name in node.input]
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def half_throughout(path: Path) -> None:
    """Computes in fp16, from images in fp16 to vectors in fp16."""
    model = convert_float_to_float16(onnx.load(path), keep_io_types=False)
    shorten(model.graph)
    onnx.save(model, path)


def with_external_data(path: Path) -> None:
    """Moves the weights into a file beside the graph, under the name that optimum gives it."""
    location = path.name + "_data"
    path.with_name(location).unlink(missing_ok=True)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=location, size_threshold=256)


def nan(path: Path) -> None:
    """Spoils one value of the largest weight."""
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda initializer: len(initializer.raw_data))
    values = numpy_helper.to_array(largest).copy()
    values.reshape(-1)[0] = np.nan
    largest.CopyFrom(numpy_helper.from_array(values, largest.name))
    onnx.save(model, path)
