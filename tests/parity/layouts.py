"""Writes CLIP models of random weights in the layouts that exporters use, and the vectors that PyTorch gives for them.

    python layouts.py                    the tiny ones that are in the repository, with their golden vectors
    python layouts.py --out DIR          somewhere else

The work of each exporter is a function in `LAYOUTS`; `REFUSED` holds graphs that are no CLIP towers. full_size.py
uses the same functions for models of ViT-B/32's size.

SentencePiece is imported where it is used: the bench of peers makes models without it.
"""

import argparse
import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Sequence

import onnx
import onnxruntime
import open_clip
import PIL
import tokenizers
import torch
import torchvision
import transformers
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

import clip_models
from clip_models import BASE, Size, Tower
from graphs import ByName, Dynamic, export, half, half_throughout, nan, with_external_data

REPOSITORY = Path(__file__).resolve().parents[2]
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PHOTOS, TEXTS = 4, (
    "a photo of a cat", "A photo of the  Red DOG!", "two cats on a slice of pizza", "in the snow", "x", "",
    "the apple in the snow on the pizza of the dog in the photo of the cat on the red apple of the two cats",
)


@dataclass
class Reference:
    """The vectors of the original library, from a Pillow image and from token ids of equally long texts."""

    see: Callable[[Image.Image], torch.Tensor]
    read: Callable[[torch.Tensor], torch.Tensor]
    tokenizer: tokenizers.Tokenizer
    context: int
    pad: int | None = None
    least_cosine: tuple[float, float] = (0.9999, 0.99999)
    model: torch.nn.Module | None = None
    # Where the tokenizer's own library gives the ids.
    encode: Callable[[str], list[int]] | None = None
    other_texts: Sequence[str] = ()

    def image(self, file: Path) -> list[float]:
        with torch.no_grad():
            return normalized(self.see(Image.open(file)))

    def texts(self, texts: Sequence[str]) -> list[list[float]]:
        by_length: dict[int, list[tuple[int, list[int]]]] = {}
        for place, ids in enumerate(map(self.ids, texts)):
            by_length.setdefault(len(ids), []).append((place, ids))
        vectors: dict[int, list[float]] = {}
        for group in by_length.values():
            for start in range(0, len(group), 32):
                places, ids = zip(*group[start : start + 32])
                with torch.no_grad():
                    vectors |= zip(places, map(normalized, self.read(torch.tensor(ids))))
        return [vectors[place] for place in range(len(texts))]

    def ids(self, text: str) -> list[int]:
        ids = self.encode(text) if self.encode else self.tokenizer.encode(text).ids
        if len(ids) > self.context:
            ids = [*ids[: self.context - 1], ids[-1]]
        return ids if self.pad is None else ids + [self.pad] * (self.context - len(ids))


@dataclass
class Work:
    """Where a layout goes and of which size it is."""

    folder: Path
    size: Size
    activation: str = "quick_gelu"
    seed: int = 0

    def tokenizer(self) -> tokenizers.Tokenizer:
        return clip_models.full_tokenizer() if self.size.context == BASE.context else clip_models.tiny_tokenizer()

    def write(self, name: str, content: dict) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) + "\n")

    def save(self, tokenizer: tokenizers.Tokenizer, name: str = "tokenizer.json") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(path), pretty=False)


def transformers_js(work: Work) -> Reference:
    """Two graphs in onnx/, not normalised, without an attention mask, and Hugging Face's configuration."""
    model, reference = hugging_face(work)
    export(ByName(model, "image_embeds"), pixels(work.size), work.folder / "onnx/vision_model.onnx")
    export(ByName(model, "text_embeds"), ids(work.size), work.folder / "onnx/text_model.onnx")
    return reference


def optimum_one_file(work: Work) -> Reference:
    """One graph that takes an image and a text at once and gives both vectors normalised."""
    model, reference = hugging_face(work)
    outputs = ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")
    export(ByName(model, *outputs), ids(work.size) | pixels(work.size) | mask(work.size), work.folder / "model.onnx")
    return reference


def qdrant(work: Work) -> Reference:
    """Two graphs of names of their own, with a mask and with the hidden states as second outputs."""
    model, reference = hugging_face(work)
    export(ByName(model, "image_embeds", "last_hidden_state"), pixels(work.size), work.folder / "vision.onnx")
    export(ByName(model, "text_embeds", "last_hidden_state"), ids(work.size) | mask(work.size), work.folder / "text.onnx")
    return reference


def immich(work: Work) -> Reference:
    """Fixed batch and sequence, int32 ids, normalised, OpenCLIP's configuration in three files."""
    model, reference = open_clip_reference(work)
    see = lambda image: model.encode_image(image, normalize=True)
    export(Dynamic(see, model), {"image": noise(1, 3, work.size)}, work.folder / "visual/model.onnx", ["embedding"], fixed=True)
    return immich_text(work, model, reference)


def immich_uint8(work: Work) -> Reference:
    """The same with an image tower that takes bytes, the channels last, and normalises them inside."""
    model, reference = open_clip_reference(work)
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, DEVIATION))

    def see(image: torch.Tensor) -> torch.Tensor:
        values = image.permute(0, 3, 1, 2).float() / 255
        return model.encode_image((values - mean) / deviation, normalize=True)

    side = work.size.image_size
    example = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8)
    export(Dynamic(see, model), {"image": example}, work.folder / "visual/model.onnx", ["embedding"], fixed=True)
    return immich_text(work, model, reference)


def immich_text(work: Work, model: open_clip.CLIP, reference: Reference) -> Reference:
    read = lambda text: model.encode_text(text, normalize=True)
    example = {"text": whole_context(work.size).int()}
    export(Dynamic(read, model), example, work.folder / "textual/model.onnx", ["embedding"], fixed=True)
    work.save(reference.tokenizer, "textual/tokenizer.json")
    work.write("textual/tokenizer_config.json", {"pad_token": clip_models.END, "model_max_length": work.size.context})
    work.write("visual/preprocess_cfg.json", open_clip_preprocessing() | {"size": [work.size.image_size] * 2})
    work.write("config.json", open_clip_config(work))
    return reference


def open_clip_inference(work: Work) -> Reference:
    """visual.onnx and text.onnx, dynamic batch, fixed sequence, normalised, everything in open_clip_config.json."""
    model, reference = open_clip_reference(work)
    see = lambda image: model.encode_image(image, normalize=True)
    read = lambda text: model.encode_text(text, normalize=True)
    export(Dynamic(see, model), pixels(work.size), work.folder / "visual.onnx", ["image_embeddings"])
    export(
        Dynamic(read, model), {"input_ids": whole_context(work.size)}, work.folder / "text.onnx", ["text_embeddings"],
        fixed_sequence=True,
    )
    work.save(reference.tokenizer)
    # As on the Hugging Face hub: the size is that of model_cfg, the rest OpenCLIP's defaults.
    preprocessing = {"mean": list(MEAN), "std": list(DEVIATION)}
    work.write("open_clip_config.json", {"model_cfg": open_clip_config(work), "preprocess_cfg": preprocessing})
    return reference


def mlunar(work: Work) -> Reference:
    """`input` to `output` in both graphs, int32 ids of a fixed sequence, and no configuration: CLIP's own is meant."""
    if work.size is not BASE:
        small = replace(work.size.vision, width=8)
        work = replace(work, size=replace(work.size, image_size=224, patch=32, vision=small))
    size = work.size
    model, reference = open_clip_reference(work)
    export(
        Dynamic(model.encode_image, model), {"input": noise(2, 3, size)}, work.folder / "clip-visual-float32.onnx", ["output"],
        fixed_sequence=True,
    )
    export(
        Dynamic(model.encode_text, model), {"input": whole_context(size).int()}, work.folder / "clip-textual-float32.onnx",
        ["output"], fixed_sequence=True,
    )
    work.save(reference.tokenizer)
    return reference


def external_data(work: Work) -> Reference:
    """transformers.js with the weights beside the graphs, as graphs above 2 GB must have them."""
    reference = transformers_js(work)
    for path in (work.folder / "onnx").glob("*.onnx"):
        with_external_data(path)
    return reference


def half_weights(work: Work) -> Reference:
    """transformers.js with weights that are stored as fp16 and computed with as fp32."""
    reference = transformers_js(work)
    for path in (work.folder / "onnx").glob("*.onnx"):
        half(path)
    # The reference has the rounded weights: the loader is compared, not the rounding.
    with torch.no_grad():
        for weights in reference.model.parameters():
            weights.copy_(weights.half().float())
    return reference


def half_inputs(work: Work) -> Reference:
    """transformers.js in fp16 from its inputs to its outputs, as optimum exports it for a GPU."""
    reference = transformers_js(work)
    for path in (work.folder / "onnx").glob("*.onnx"):
        half_throughout(path)
    # The loss by rounding, not the one that a loader may have: of random weights, which have no slack.
    reference.least_cosine = (0.999, 0.999)
    return reference


def int8(work: Work) -> Reference:
    """transformers.js after ONNX Runtime's dynamic quantization, under its names there."""
    reference = transformers_js(work)
    for path in (work.folder / "onnx").glob("*_model.onnx"):
        quantized = path.with_name(path.stem + "_quantized.onnx")
        quantize_dynamic(path, quantized, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
        path.unlink()
    # The loss by quantization, not the one that a loader may have: of random weights, which have no slack.
    reference.least_cosine = (0.98, 0.98)
    return reference


def mobileclip(work: Work) -> Reference:
    """transformers.js with a preprocessing that does not normalise, and bilinear."""
    model, reference = hugging_face(work, bilinear=True)
    export(ByName(model, "image_embeds"), pixels(work.size), work.folder / "onnx/vision_model.onnx")
    export(ByName(model, "text_embeds"), ids(work.size), work.folder / "onnx/text_model.onnx")
    return reference


def vit_l14(work: Work) -> Reference:
    """transformers.js with ViT-L/14's 768 dimensions."""
    return transformers_js(replace(work, size=replace(work.size, dimensions=768)))


def siglip(work: Work) -> Reference:
    """Squashed images, another mean, texts padded to the context with an id that counts, and `pooler_output`."""
    work.write("tokenizer_config.json", {"pad_token": "</s>", "model_max_length": work.size.context})
    return siglip_of(work, clip_models.siglip_tokenizer(), pad=1)


def siglip2(work: Work) -> Reference:
    """The same with Gemma's tokenizer and its padding (0), whose files say neither the context nor the lower case."""
    import sentence_pieces

    tokenizer, encode = sentence_pieces.siglip2()
    work.write("tokenizer_config.json", {
        "tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>", "model_max_length": 1000000000000000019884624838656,
    })
    return replace(siglip_of(work, tokenizer, pad=0), encode=encode, other_texts=sentence_pieces.TEXTS)


def siglip_of(work: Work, tokenizer: tokenizers.Tokenizer, pad: int) -> Reference:
    size = work.size
    model = clip_models.siglip(size, tokenizer.get_vocab_size(), work.seed, pad)
    export(ByName(model.vision_model, "pooler_output"), pixels(size), work.folder / "onnx/vision_model.onnx")
    export(ByName(model.text_model, "pooler_output"), ids(size), work.folder / "onnx/text_model.onnx")
    work.save(tokenizer)
    work.write("config.json", {
        "model_type": "siglip", "text_config": {"max_position_embeddings": size.context, "model_type": "siglip_text_model"},
        "vision_config": {"image_size": size.image_size, "model_type": "siglip_vision_model"},
    })
    work.write("preprocessor_config.json", {
        "image_processor_type": "SiglipImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
        "rescale_factor": 1 / 255, "resample": 3, "size": {"height": size.image_size, "width": size.image_size},
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    })
    squash = Resize((size.image_size, size.image_size), InterpolationMode.BICUBIC)
    prepare = Compose([squash, ToTensor(), Normalize([0.5] * 3, [0.5] * 3)])
    return Reference(
        see=lambda image: model.vision_model(pixel_values=prepare(image.convert("RGB"))[None]).pooler_output,
        read=lambda ids: model.text_model(input_ids=ids).pooler_output,
        tokenizer=tokenizer, context=size.context, pad=pad,
    )


def immich_xlm_roberta(work: Work) -> Reference:
    """immich's folders with a text tower of XLM-RoBERTa: SentencePiece, and padding by a token that the graph looks for."""
    import sentence_pieces

    tokenizer, encode = sentence_pieces.xlm_roberta()
    size = work.size
    model = clip_models.open_clip_xlm_roberta(size, tokenizer.get_vocab_size(), work.seed)
    prepare = preparation(size)
    see = lambda image: model.encode_image(image, normalize=True)
    read = lambda text: model.encode_text(text, normalize=True)
    export(Dynamic(see, model), {"image": noise(1, 3, size)}, work.folder / "visual/model.onnx", ["embedding"], fixed=True)
    example = {"text": torch.tensor([[0, *range(4, 10), 2] + [1] * (size.context - 8)]).int()}
    export(Dynamic(read, model), example, work.folder / "textual/model.onnx", ["embedding"], fixed=True)
    work.save(tokenizer, "textual/tokenizer.json")
    work.write("textual/tokenizer_config.json", {"pad_token": "<pad>", "model_max_length": 512, "tokenizer_class": "XLMRobertaTokenizer"})
    work.write("visual/preprocess_cfg.json", open_clip_preprocessing() | {"size": [size.image_size] * 2})
    text = {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base", "hf_pooler_type": "mean_pooler"}
    # The real ones say nothing of the context, which is the 77 of OpenCLIP.
    work.write("config.json", open_clip_config(work) | {"text_cfg": text | {"context_length": size.context}})
    return Reference(
        see=lambda image: model.encode_image(prepare(image)), read=model.encode_text, tokenizer=tokenizer, context=size.context, pad=1,
        encode=lambda text: encode(open_clip.tokenizer.get_clean_fn("whitespace")(text)),
        other_texts=(*sentence_pieces.TEXTS, "caf&eacute;  in the snow"),
    )


LAYOUTS = [
    transformers_js, optimum_one_file, qdrant, immich, immich_uint8, open_clip_inference, mlunar, external_data, half_weights,
    int8, mobileclip, vit_l14, siglip, siglip2, immich_xlm_roberta, half_inputs,
]


def hugging_face(work: Work, bilinear: bool = False) -> tuple[transformers.CLIPModel, Reference]:
    size, tokenizer = work.size, work.tokenizer()
    model = clip_models.clip(size, tokenizer.get_vocab_size(), work.activation, work.seed)
    work.save(tokenizer)
    work.write("config.json", {
        "model_type": "clip", "projection_dim": size.dimensions,
        "text_config": {"max_position_embeddings": size.context, "model_type": "clip_text_model"},
        "vision_config": {"image_size": size.image_size, "patch_size": size.patch, "model_type": "clip_vision_model"},
    })
    normalization = {"do_normalize": False} if bilinear else {"do_normalize": True, "image_mean": list(MEAN), "image_std": list(DEVIATION)}
    work.write("preprocessor_config.json", {
        "crop_size": {"height": size.image_size, "width": size.image_size}, "do_center_crop": True, "do_rescale": True,
        "do_convert_rgb": True, "do_resize": True, "image_processor_type": "CLIPImageProcessor",
        "resample": 2 if bilinear else 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": size.image_size},
    } | normalization)
    prepare = preparation(size, bilinear)
    reference = Reference(
        see=lambda image: model.visual_projection(model.vision_model(prepare(image)).pooler_output),
        read=lambda ids: model.text_projection(model.text_model(ids).pooler_output),
        tokenizer=tokenizer, context=size.context, model=model,
    )
    return model, reference


def open_clip_reference(work: Work) -> tuple[open_clip.CLIP, Reference]:
    size, tokenizer = work.size, work.tokenizer()
    model = clip_models.open_clip_model(size, tokenizer.get_vocab_size(), work.activation == "quick_gelu", work.seed)
    prepare = preparation(size)
    return model, Reference(
        see=lambda image: model.encode_image(prepare(image)), read=model.encode_text,
        tokenizer=tokenizer, context=size.context, pad=0,
    )


def preparation(size: Size, bilinear: bool = False) -> Callable[[Image.Image], torch.Tensor]:
    """CLIP's: torchvision's rounding of the crop, Pillow's resampling."""
    steps = [Resize(size.image_size, InterpolationMode.BILINEAR if bilinear else InterpolationMode.BICUBIC), CenterCrop(size.image_size), ToTensor()]
    steps += [] if bilinear else [Normalize(MEAN, DEVIATION)]
    prepare = Compose(steps)
    return lambda image: prepare(image.convert("RGB"))[None]


def open_clip_config(work: Work) -> dict:
    return {
        "embed_dim": work.size.dimensions, "quick_gelu": work.activation == "quick_gelu",
        "vision_cfg": {"image_size": work.size.image_size, "layers": work.size.vision.layers, "width": work.size.vision.width, "patch_size": work.size.patch},
        "text_cfg": {"context_length": work.size.context, "width": work.size.text.width, "heads": work.size.text.heads, "layers": work.size.text.layers},
    }


def open_clip_preprocessing() -> dict:
    return {
        "mode": "RGB", "mean": list(MEAN), "std": list(DEVIATION), "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
    }


def noise(batch: int, channels: int, size: Size) -> torch.Tensor:
    return torch.randn(batch, channels, size.image_size, size.image_size)


def pixels(size: Size) -> dict[str, torch.Tensor]:
    return {"pixel_values": noise(2, 3, size)}


def ids(size: Size) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6], [4, 5, 6, 7]])}


def mask(size: Size) -> dict[str, torch.Tensor]:
    return {"attention_mask": torch.ones(3, 4, dtype=torch.int64)}


def whole_context(size: Size) -> torch.Tensor:
    return torch.arange(2 * size.context).reshape(2, size.context)


def refused(folder: Path, size: Size) -> None:
    """Graphs that look like towers: each takes the place of one in transformers_js."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_models.tiny_tokenizer()
    model = clip_models.clip(size, tokenizer.get_vocab_size(), "quick_gelu", seed=1)
    export(ByName(model.vision_model, "last_hidden_state", "pooler_output"), pixels(size), folder / "unprojected_vision.onnx")
    export(ByName(model.text_model, "last_hidden_state", "pooler_output"), ids(size), folder / "unprojected_text.onnx")
    export(ByName(model.vision_model, "last_hidden_state"), pixels(size), folder / "hidden_states.onnx")
    export(ByName(model, "image_embeds"), pixels(size), folder / "not_a_number.onnx")
    nan(folder / "not_a_number.onnx")
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=16,
        attn_implementation="eager",
    )
    bert = clip_models.spread(transformers.BertModel(config), seed=2)
    types = {"token_type_ids": torch.zeros(3, 4, dtype=torch.int64)}
    export(ByName(bert, "last_hidden_state", "pooler_output"), ids(size) | mask(size) | types, folder / "bert.onnx")


def normalized(vector: torch.Tensor) -> list[float]:
    vector = vector.reshape(-1).double()
    return [float(f"{value:.6g}") for value in (vector / vector.norm()).tolist()]


def photos() -> list[Path]:
    folder = REPOSITORY / "models/demo/photos"
    files = sorted(folder.glob("*.*g")) + sorted(folder.glob("*.webp"))
    return files[:: len(files) // PHOTOS][:PHOTOS]


def golden(reference: Reference) -> dict:
    texts = (*TEXTS, *reference.other_texts)
    return {
        "least_cosine": dict(zip(("images", "texts"), reference.least_cosine)),
        "images": [{"file": str(file.relative_to(REPOSITORY)), "embedding": reference.image(file)} for file in photos()],
        "texts": [{"text": text, "embedding": vector} for text, vector in zip(texts, reference.texts(texts))],
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=REPOSITORY / "tests/data")
    out = arguments.parse_args().out
    torch.manual_seed(0)
    layouts = {}
    for number, layout in enumerate(LAYOUTS):
        layouts[layout.__name__] = golden(layout(Work(out / "models" / layout.__name__, clip_models.TINY, seed=number)))
    refused(out / "refused_models", replace(clip_models.TINY, vision=Tower(24, 1, 2), text=Tower(24, 1, 2)))
    import sentencepiece

    versions = {module.__name__: module.__version__ for module in (torch, torchvision, transformers, open_clip, tokenizers, sentencepiece, onnx, onnxruntime, PIL)}
    header = {
        "what": "L2-normalised embeddings of the models in tests/data/models, by PyTorch and Pillow; written by tests/parity/layouts.py",
        "versions": {"python": platform.python_version()} | versions,
    }
    (out / "golden").mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(content, ensure_ascii=False)}" for name, content in layouts.items())
    (out / "golden/layouts.json").write_text(json.dumps(header, indent=1)[:-2] + ',\n "layouts": {\n' + lines + "\n }\n}\n")


if __name__ == "__main__":
    main()
