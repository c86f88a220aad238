"""OpenCLIP in process: python open_clip_peer.py WEIGHTS PRECISION."""

import sys
from io import BytesIO

import open_clip
import torch
from PIL import Image

from worker import BATCH, System, serve


class OpenClip(System):
    def __init__(self, weights: str, precision: str) -> None:
        name = "ViT-B-32-quickgelu"
        self.model, _, self.prepare = open_clip.create_model_and_transforms(name, pretrained=weights, precision=precision)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name)
        self.dtype = open_clip.get_input_dtype(precision)

    def text(self, text: str) -> list[float]:
        with torch.inference_mode():
            return self.model.encode_text(self.tokenizer([text]))[0].float().tolist()

    def photo(self, data: bytes) -> list[float]:
        return self.see([data])[0].tolist()

    def photos(self, ready: list[bytes]) -> None:
        for start in range(0, len(ready), BATCH):
            self.see(ready[start : start + BATCH])

    def see(self, photos: list[bytes]) -> torch.Tensor:
        with torch.inference_mode():
            pixels = torch.stack([self.prepare(Image.open(BytesIO(data))) for data in photos])
            return self.model.encode_image(pixels.to(self.dtype) if self.dtype else pixels).float()


if __name__ == "__main__":
    serve(OpenClip(*sys.argv[1:]))
