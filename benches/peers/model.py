"""Writes one model of ViT-B/32's shapes in the forms that the systems load, unless it is there already.

    python model.py DIR

DIR/fp32 and DIR/int8 are folders as transformers.js and pg_clip read them, the second after ONNX Runtime's dynamic
quantization; DIR/open_clip.pt holds the same weights under OpenCLIP's names, which are OpenAI's as well. The weights
are random: no trained ones can be had everywhere, and how long a multiplication takes does not depend on them.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import CLIPModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/parity"))
import layouts  # noqa: E402
from clip_models import BASE, END, START  # noqa: E402

SEED = 10
ATTENTION = ("q_proj", "k_proj", "v_proj")
BLOCK = {
    "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    folder = arguments.parse_args().folder
    stamp = folder / "made-by"
    content = Path(__file__).read_text()
    if stamp.is_file() and stamp.read_text() == content:
        return
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    reference = layouts.transformers_js(layouts.Work(folder / "fp32", BASE, seed=SEED))
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer", "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END,
        "model_max_length": BASE.context,
    }
    (folder / "fp32/tokenizer_config.json").write_text(json.dumps(tokenizer) + "\n")
    quantize(folder / "fp32", folder / "int8")
    torch.save(open_clip_weights(reference.model), folder / "open_clip.pt")
    stamp.write_text(content)


def quantize(source: Path, target: Path) -> None:
    """As models on the hub are: all matrices, per channel, under the names that transformers.js calls q8."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.onnx"))
    for path in (source / "onnx").glob("*.onnx"):
        quantize_dynamic(
            path, target / "onnx" / f"{path.stem}_quantized.onnx", weight_type=QuantType.QInt8, per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )


def open_clip_weights(model: CLIPModel) -> dict[str, torch.Tensor]:
    """transformers' weights under OpenCLIP's names."""
    theirs = model.state_dict()
    vision, text = "vision_model.", "text_model."
    ours = {
        "visual.class_embedding": theirs[vision + "embeddings.class_embedding"],
        "visual.positional_embedding": theirs[vision + "embeddings.position_embedding.weight"],
        "visual.conv1.weight": theirs[vision + "embeddings.patch_embedding.weight"],
        "visual.proj": theirs["visual_projection.weight"].T,
        "positional_embedding": theirs[text + "embeddings.position_embedding.weight"],
        "token_embedding.weight": theirs[text + "embeddings.token_embedding.weight"],
        "text_projection": theirs["text_projection.weight"].T,
        "logit_scale": theirs["logit_scale"],
    }
    norms = {vision + "pre_layrnorm": "visual.ln_pre", vision + "post_layernorm": "visual.ln_post", text + "final_layer_norm": "ln_final"}
    for parameter in ("weight", "bias"):
        ours |= {f"{our}.{parameter}": theirs[f"{their}.{parameter}"] for their, our in norms.items()}
        for their, our, size in ((vision, "visual.", BASE.vision), (text, "", BASE.text)):
            for number in range(size.layers):
                ours |= block(theirs, f"{their}encoder.layers.{number}.", f"{our}transformer.resblocks.{number}.", parameter)
    return {name: weights.clone().contiguous() for name, weights in ours.items()}


def block(theirs: dict[str, torch.Tensor], their: str, our: str, parameter: str) -> dict[str, torch.Tensor]:
    found = {f"{our}{new}.{parameter}": theirs[f"{their}{old}.{parameter}"] for old, new in BLOCK.items()}
    attention = [theirs[f"{their}self_attn.{name}.{parameter}"] for name in ATTENTION]
    return found | {f"{our}attn.in_proj_{parameter}": torch.cat(attention)}


if __name__ == "__main__":
    main()
