"""Searches the demo photos with a text or a picture, through the reference: a look at what the demo will answer."""

import argparse
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from evaluate import DELIVERED, clipped, session
from preprocess import pixel_values


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("queries", nargs="+", help="texts, or paths of pictures")
    arguments.add_argument("--model", type=Path, default=DELIVERED)
    arguments.add_argument("--first", type=int, default=5)
    options = arguments.parse_args()
    vision, text = session(options.model / "vision_model.onnx", 2), session(options.model / "text_model.onnx", 2)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    photos = json.loads((DELIVERED / "photos/manifest.json").read_text())
    embed_image = lambda file: vision.run(None, {"pixel_values": pixel_values(file.read_bytes())[None]})[0][0]
    embed_text = lambda said: text.run(None, {"input_ids": [clipped(tokenizer.encode(said).ids)]})[0][0]
    vectors = np.stack([embed_image(DELIVERED / "photos" / photo["file"]) for photo in photos])
    for query in options.queries:
        similarity = vectors @ (embed_image(Path(query)) if Path(query).is_file() else embed_text(query))
        found = similarity.argsort()[::-1][: options.first]
        print(f"{query}: " + ", ".join(f"{photos[index]['concept']} {similarity[index]:.2f}" for index in found))


if __name__ == "__main__":
    main()
