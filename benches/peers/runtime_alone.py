"""ONNX Runtime with nothing around it, on inputs that are ready: python runtime_alone.py FOLDER.

The time that any system on this runtime takes where everything else costs nothing.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer

from worker import BATCH, System, serve

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
SIDE = 224


class RuntimeAlone(System):
    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tower_text, self.tower_vision = (
            onnxruntime.InferenceSession(str(next((folder / "onnx").glob(f"{name}*.onnx"))), providers=["CPUExecutionProvider"])
            for name in ("text_model", "vision_model")
        )

    def ready_text(self, text: str) -> np.ndarray:
        return np.array([self.tokenizer.encode(text).ids], np.int64)

    def ready_photo(self, data: bytes) -> np.ndarray:
        return pixels(data)

    def text(self, ids: np.ndarray) -> np.ndarray:
        return self.tower_text.run(None, {"input_ids": ids})[0][0]

    def photo(self, values: np.ndarray) -> np.ndarray:
        return self.tower_vision.run(None, {"pixel_values": values})[0][0]

    def photos(self, ready: list[Any]) -> None:
        for start in range(0, len(ready), BATCH):
            self.tower_vision.run(None, {"pixel_values": np.concatenate(ready[start : start + BATCH])})


def pixels(data: bytes) -> np.ndarray:
    """CLIP's preprocessing with Pillow."""
    image = Image.open(BytesIO(data)).convert("RGB")
    width, height = image.size
    scale = SIDE / min(width, height)
    size = (SIDE, int(height * scale)) if width < height else (int(width * scale), SIDE)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((side - SIDE) / 2) for side in size)
    values = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
    return np.ascontiguousarray(((values - MEAN) / DEVIATION).transpose(2, 0, 1)[None])


if __name__ == "__main__":
    serve(RuntimeAlone(Path(sys.argv[1])))
