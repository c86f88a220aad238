"""Writes the vectors that pg_clip has to reproduce, from PyTorch and Pillow alone.

The towers of model.py get their weights out of the delivered graphs, so this needs nothing but the repository: neither a work folder
nor ONNX Runtime, whose answers are what is being checked.

Writes  tests/data/golden/demo.json
"""

import argparse
import json
import platform
from pathlib import Path

import PIL
import tokenizers
import torch

import export
import model
from preprocess import pixel_values

REPOSITORY = Path(__file__).resolve().parents[3]
KINDS = {"jpg": 12, "png": 6, "webp": 6}
TEXTS = (
    "pizza",
    "dog",
    "a photo of a dog",
    "a slice of pizza",
    "a red apple",
    "A Red APPLE",
    "  music \t and\n food  ",
    "animal",
    "music",
    "food",
    "it's raining, isn't it?!",
    "rock 'n' roll: 100% (live) #1",
    "2 bicycles, 10 cars & 365 days",
    "crème brûlée in a café",
    "cafe\u0301",
    "jalapeño, piñata, naïve Ångström",
    "🍕",
    "a 🐕 and a 🎸",
    "犬の写真",
    "собака",
    "don't you'll we've i'm they're he'd",
    "x",
    "",
    "a very long description of a picture that shows a brown dog on a green meadow beside an old stone bridge while behind it a red "
    "bicycle leans against a tree and the sun goes down over the mountains",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=REPOSITORY / "tests/data/golden/demo.json")
    options = arguments.parse_args()
    vision, text = export.read()
    tokenizer = tokenizers.Tokenizer.from_file(str(export.DELIVERED / "tokenizer.json"))
    header = {
        "what": "L2-normalised embeddings of the demo model, by PyTorch and Pillow; written by models/demo/training/golden.py",
        "model": "models/demo",
        "context": model.CONTEXT,
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "pillow": PIL.__version__, "tokenizers": tokenizers.__version__,
        },
    }
    with torch.no_grad():
        images = [{"file": str(file.relative_to(REPOSITORY)), "embedding": embed_image(vision, file)} for file in photos()]
        texts = [embed_text(text, tokenizer, said) for said in TEXTS]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".new").write_text(document(header, images, texts))
    options.out.with_suffix(".new").rename(options.out)


def photos() -> list[Path]:
    folder = export.DELIVERED / "photos"
    files = [folder / photo["file"] for photo in json.loads((folder / "manifest.json").read_text())]
    chosen = []
    for kind, count in KINDS.items():
        of_kind = [file for file in files if file.suffix == f".{kind}"]
        chosen += of_kind[:: len(of_kind) // count][:count]
    return chosen


def embed_image(tower: model.VisionTower, file: Path) -> list[float]:
    return rounded(tower(torch.from_numpy(pixel_values(file.read_bytes()))[None])[0])


def embed_text(tower: model.TextTower, tokenizer: tokenizers.Tokenizer, said: str) -> dict:
    ids = tokenizer.encode(said).ids
    if len(ids) > model.CONTEXT:
        ids = [*ids[: model.CONTEXT - 1], ids[-1]]
    return {"text": said, "input_ids": ids, "embedding": rounded(tower(torch.tensor([ids]))[0])}


def rounded(vector: torch.Tensor) -> list[float]:
    vector = vector.double()
    return [float(f"{value:.7g}") for value in (vector / vector.norm()).tolist()]


def document(header: dict, images: list[dict], texts: list[dict]) -> str:
    """A line for an entry, so that a change shows what changed."""
    lines = lambda entries: ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in entries)
    return (
        json.dumps(header, indent=1)[:-2] + ',\n "images": [\n' + lines(images) + '\n ],\n "texts": [\n' + lines(texts) + "\n ]\n}\n"
    )


if __name__ == "__main__":
    main()
