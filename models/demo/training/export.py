"""Exports the polished towers as the folder that pg_clip loads.

The weights are stored as fp16 and cast to fp32 by the graph itself: half the bytes, the same arithmetic. Initializers keep the names
of the module's parameters, so that `read` can build the PyTorch modules back from nothing but the delivered files.

Writes  vision_model.onnx, text_model.onnx, tokenizer.json, config.json, preprocessor_config.json
"""

import argparse
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

import model
import preprocess

DELIVERED = Path(__file__).resolve().parent.parent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--out", type=Path, default=DELIVERED)
    options = arguments.parse_args()
    state = torch.load(options.work / "polished.pt")["average"]
    vision, text = model.VisionTower(), model.TextTower(len(state["text.tokens.weight"]))
    vision.load_state_dict(part(state, "vision."))
    text.load_state_dict(part(state, "text."))
    export(
        model.folded(vision.eval()), torch.randn(2, 3, 224, 224), options.out / "vision_model.onnx",
        "pixel_values", "image_embeds", {0: "batch"},
    )
    export(
        text.eval(), torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]]), options.out / "text_model.onnx",
        "input_ids", "text_embeds", {0: "batch", 1: "sequence"},
    )
    shutil.copy(options.work / "tokenizer.json", options.out / "tokenizer.json.new")
    (options.out / "tokenizer.json.new").rename(options.out / "tokenizer.json")
    write(options.out / "config.json", configuration(text))
    write(options.out / "preprocessor_config.json", preprocessing())


def read(folder: Path = DELIVERED) -> tuple[model.VisionTower, model.TextTower]:
    """The towers, with their weights taken out of the delivered graphs."""
    vision_weights, text_weights = weights(folder / "vision_model.onnx"), weights(folder / "text_model.onnx")
    vision, text = model.VisionTower(folded=True), model.TextTower(len(text_weights["tokens.weight"]))
    for tower, found in ((vision, vision_weights), (text, text_weights)):
        tower.load_state_dict({name: found[name] for name in tower.state_dict()})
    return vision.eval(), text.eval()


def part(state: dict, prefix: str) -> dict:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {
        initializer.name: torch.from_numpy(numpy_helper.to_array(initializer).astype(np.float32))
        for initializer in onnx.load(path).graph.initializer
    }


def export(tower: torch.nn.Module, example: torch.Tensor, path: Path, input_name: str, output_name: str, axes: dict[int, str]) -> None:
    buffer = io.BytesIO()
    torch.onnx.export(
        tower, (example,), buffer, input_names=[input_name], output_names=[output_name],
        dynamic_axes={input_name: axes, output_name: {0: "batch"}}, opset_version=17, dynamo=False, do_constant_folding=False,
    )
    graph = onnx.load_from_string(buffer.getvalue())
    store_as_half(graph.graph)
    graph.producer_name, graph.doc_string = "pg_clip demo model", "Trained on composed emoji pictures. Not a CLIP for real photos."
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def store_as_half(graph: onnx.GraphProto) -> None:
    casts = []
    for initializer in graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype == np.float32:
            initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), initializer.name))
            casts.append(helper.make_node("Cast", [initializer.name], [f"{initializer.name}.float"], to=onnx.TensorProto.FLOAT))
    wide = {cast.input[0]: cast.output[0] for cast in casts}
    for node in graph.node:
        node.input[:] = [wide.get(name, name) for name in node.input]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def configuration(text: model.TextTower) -> dict:
    end = len(text.tokens.weight) - 1
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": model.DIMENSIONS,
        "text_config": {
            "vocab_size": end + 1,
            "max_position_embeddings": model.CONTEXT,
            "hidden_size": text.tokens.weight.shape[1],
            "num_hidden_layers": len(text.layers),
            "num_attention_heads": text.layers[0].heads,
            "projection_dim": model.DIMENSIONS,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        "vision_config": {"image_size": 224, "num_channels": 3, "projection_dim": model.DIMENSIONS},
    }


def preprocessing() -> dict:
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.MEAN),
        "image_std": list(preprocess.DEVIATION),
    }


def write(path: Path, content: dict) -> None:
    path.with_suffix(".new").write_text(json.dumps(content, indent=2) + "\n")
    path.with_suffix(".new").rename(path)


if __name__ == "__main__":
    main()
