"""CLIP models with seeded random weights, in the two sizes that the parity tests use.

`TINY` is small enough to be committed in every layout; `BASE` has the shapes of ViT-B/32. Random weights prove what a
loader, a tokenizer and a preprocessing do as well as trained ones. They are spread wider than transformers initialises
them, so that different inputs get vectors that are far apart and a mistake shows in the cosine.
"""

from dataclasses import dataclass

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel, XLMRobertaConfig

START, END = "<|startoftext|>", "<|endoftext|>"
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
WORDS = ["a", "photo", "of", "the", "cat", "dog", "red", "apple", "slice", "pizza", "two", "on", "in", "snow"]


@dataclass(frozen=True)
class Tower:
    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Size:
    vision: Tower
    text: Tower
    image_size: int
    patch: int
    context: int
    dimensions: int


TINY = Size(Tower(16, 1, 2), Tower(16, 1, 2), image_size=32, patch=8, context=16, dimensions=24)
BASE = Size(Tower(768, 12, 12), Tower(512, 12, 8), image_size=224, patch=32, context=77, dimensions=512)


def clip(size: Size, vocabulary: int, activation: str, seed: int) -> CLIPModel:
    """transformers' CLIP; the last two ids of the vocabulary are the start and the end."""
    ends = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    config = CLIPConfig(
        projection_dim=size.dimensions,
        text_config=tower(size.text) | ends | {
            "vocab_size": vocabulary, "max_position_embeddings": size.context, "hidden_act": activation,
            "projection_dim": size.dimensions,
        },
        vision_config=tower(size.vision) | {
            "image_size": size.image_size, "patch_size": size.patch, "hidden_act": activation,
            "projection_dim": size.dimensions,
        },
    )
    return spread(CLIPModel._from_config(config, attn_implementation="eager"), seed)


def siglip(size: Size, vocabulary: int, seed: int, pad: int = 1) -> SiglipModel:
    """transformers' SigLIP and SigLIP 2: no causal mask, no projection, pooled at the last position whatever stands there."""
    config = SiglipConfig(
        text_config=tower(size.text) | {
            "vocab_size": vocabulary, "max_position_embeddings": size.context, "pad_token_id": pad, "eos_token_id": 1,
            "bos_token_id": 1, "projection_size": size.vision.width,
        },
        vision_config=tower(size.vision) | {"image_size": size.image_size, "patch_size": size.patch},
    )
    model = spread(SiglipModel._from_config(config, attn_implementation="eager"), seed)
    with torch.no_grad():
        # The pooled token stands at the last position: this makes the other tokens count there.
        for layer in model.text_model.encoder.layers:
            layer.self_attn.out_proj.weight.mul_(8)
    return model


def open_clip_model(size: Size, vocabulary: int, quick_gelu: bool, seed: int) -> open_clip.CLIP:
    """OpenCLIP's CLIP, as `create_model` builds it from a configuration."""
    vision = open_clip.CLIPVisionCfg(
        layers=size.vision.layers, width=size.vision.width, head_width=size.vision.width // size.vision.heads,
        patch_size=size.patch, image_size=size.image_size,
    )
    text = open_clip.CLIPTextCfg(
        context_length=size.context, vocab_size=vocabulary, width=size.text.width, heads=size.text.heads,
        layers=size.text.layers,
    )
    return spread(open_clip.CLIP(size.dimensions, vision, text, quick_gelu=quick_gelu), seed)


def open_clip_xlm_roberta(size: Size, vocabulary: int, seed: int) -> open_clip.CustomTextCLIP:
    """OpenCLIP's CLIP with a text tower of transformers: the mean over all tokens but the padding (1), then two layers."""
    vision = open_clip.CLIPVisionCfg(
        layers=size.vision.layers, width=size.vision.width, head_width=size.vision.width // size.vision.heads,
        patch_size=size.patch, image_size=size.image_size,
    )
    model = open_clip.CustomTextCLIP(size.dimensions, vision, open_clip.CLIPTextCfg(width=8, heads=1, layers=1, vocab_size=8))
    config = XLMRobertaConfig(**tower(size.text) | {
        "vocab_size": vocabulary, "max_position_embeddings": size.context + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "type_vocab_size": 1, "attn_implementation": "eager",
    })
    model.text = HFTextEncoder("xlm-roberta-base", size.dimensions, config=config, pooler_type="mean_pooler", proj_type="mlp", pretrained=False)
    return spread(model, seed)


def tower(shape: Tower) -> dict:
    return {
        "hidden_size": shape.width, "intermediate_size": 4 * shape.width, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }


def spread(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in module.named_parameters():
            noise = torch.randn(weights.shape, generator=generator)
            if "embedding" in name or "probe" in name:
                weights.copy_(noise)
            elif weights.dim() >= 2:
                weights.copy_(noise * weights[0].numel() ** -0.5)
            elif name.endswith("bias"):
                weights.copy_(0.1 * noise)
            elif weights.dim() == 1:
                weights.copy_(1 + 0.1 * noise)
    return module.eval()


def clip_tokenizer(bpe: list[tuple[str, str]]) -> Tokenizer:
    """A tokenizer as OpenAI's, with these merges: bytes, bytes that end a word, merges, start and end."""
    alphabet = list(byte_characters().values())
    tokens = alphabet + [character + "</w>" for character in alphabet] + ["".join(pair) for pair in bpe] + [START, END]
    tokenizer = Tokenizer(models.BPE(
        vocab={token: number for number, token in enumerate(tokens)}, merges=bpe, end_of_word_suffix="</w>",
        continuing_subword_prefix="", unk_token=END,
    ))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    count = len(tokens)
    tokenizer.post_processor = processors.RobertaProcessing((END, count - 1), (START, count - 2), trim_offsets=False, add_prefix_space=False)
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def tiny_tokenizer() -> Tokenizer:
    return clip_tokenizer(merges(WORDS))


def full_tokenizer() -> Tokenizer:
    """OpenAI's own, out of the vocabulary that OpenCLIP ships."""
    return clip_tokenizer([tuple(pair) for pair in open_clip.tokenizer.SimpleTokenizer().bpe_ranks])


def siglip_tokenizer() -> Tokenizer:
    """Whole words; `</s>` (1) ends a text and pads it, as in SigLIP's."""
    tokens = ["<pad>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


def merges(words: list[str]) -> list[tuple[str, str]]:
    """The merges that make each word one token, from the left."""
    found: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if tuple(parts[:2]) not in found:
                found.append(tuple(parts[:2]))
            parts[:2] = ["".join(parts[:2])]
    return found


def byte_characters() -> dict[int, str]:
    """OpenAI's order of the 256 bytes, each as a character that can be printed."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + number) for number, byte in enumerate(others)}
