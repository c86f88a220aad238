"""CLIP's preprocessing, the reference: Pillow's bicubic, torchvision's crop, CLIP's mean and deviation."""

import io

import numpy as np
from PIL import Image

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def pixel_values(encoded: bytes) -> np.ndarray:
    """A JPEG, PNG or WebP to float32 [3, 224, 224]."""
    with Image.open(io.BytesIO(encoded)) as image:
        picture = image.convert("RGB")
    width, height = picture.size
    short = min(width, height)
    picture = picture.resize((int(SIDE * width / short), int(SIDE * height / short)), Image.Resampling.BICUBIC)
    # Python rounds half to even, and so does torchvision's CenterCrop.
    left, top = round((picture.width - SIDE) / 2), round((picture.height - SIDE) / 2)
    values = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
    return ((values - np.float32(MEAN)) / np.float32(DEVIATION)).transpose(2, 0, 1)
