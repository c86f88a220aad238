"""Composes a picture: one glyph, turned, sized, shadowed and relit, on a made-up background.

Every picture is a pure function of (concept, seed): training, validation, test, photos and queries differ only in their seeds,
and a picture never has to be stored to be had again.
"""

import numpy as np
from PIL import Image, ImageDraw

# The glyph's size as a share of the picture's shorter side.
SMALLEST, LARGEST = 0.38, 0.88

# Seeds are kept apart by thousands of millions, so that no two purposes can meet.
TRAINING, VALIDATION, TEST, PHOTOS, QUERIES = (purpose * 10**9 for purpose in range(1, 6))


def seed_of(purpose: int, concept: int, picture: int) -> int:
    return purpose + concept * 10**5 + picture


def compose(glyph: np.ndarray, seed: int, width: int, height: int) -> tuple[Image.Image, float]:
    """An RGB picture of width x height, and the scale of the glyph in it."""
    lot = np.random.default_rng(seed)
    side = min(width, height)
    scale = float(lot.uniform(SMALLEST, LARGEST))
    picture = background(lot, width, height)
    thing = turned(lot, glyph, scale * side)
    left, top = place(lot, thing.size, scale * side, width, height)
    if lot.random() < 0.6:
        shadow(lot, picture, thing, left, top, side)
    picture.paste(thing, (left, top), thing)
    return relit(lot, picture), scale


def background(lot: np.random.Generator, width: int, height: int) -> Image.Image:
    kind = lot.choice(["plain", "gradient", "cloudy", "horizon", "stripes", "tiles", "lights"], p=[0.14, 0.2, 0.24, 0.16, 0.08, 0.06, 0.12])
    if kind == "plain":
        return Image.new("RGB", (width, height), colour(lot))
    if kind == "gradient":
        return enlarged(np.array([[colour(lot), colour(lot)], [colour(lot), colour(lot)]]), width, height)
    if kind == "cloudy":
        rows, columns = lot.integers(3, 9, 2)
        spread = lot.uniform(15, 60)
        return enlarged(np.array(colour(lot)) + lot.normal(0, spread, (rows, columns, 3)), width, height)
    if kind == "horizon":
        at = int(lot.integers(3, 7))
        rows = np.array([colour(lot)] * at + [colour(lot)] * (9 - at))[:, None, :] + np.linspace(0, lot.uniform(-40, 40), 9)[:, None, None]
        return enlarged(np.repeat(rows, 2, axis=1) + lot.normal(0, 6, (9, 2, 3)), width, height)
    if kind == "lights":
        picture = enlarged(np.array(colour(lot)) + lot.normal(0, 25, (2, 2, 3)), width, height)
        brush = ImageDraw.Draw(picture, "RGBA")
        for _ in range(int(lot.integers(5, 18))):
            x, y, radius = lot.uniform(0, width), lot.uniform(0, height), lot.uniform(0.02, 0.12) * min(width, height)
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour(lot), int(lot.integers(40, 150))))
        return picture
    first, second = np.array(colour(lot)), np.array(colour(lot))
    second = first + (second - first) * lot.uniform(0.2, 0.7)
    step = lot.uniform(0.05, 0.2) * min(width, height)
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    if kind == "stripes":
        angle = lot.uniform(0, np.pi)
        mask = np.floor((x * np.cos(angle) + y * np.sin(angle)) / step).astype(int) % 2
    else:
        mask = (np.floor(x / step) + np.floor(y / step)).astype(int) % 2
    return Image.fromarray(np.where(mask[..., None], first, second).astype(np.uint8))


def colour(lot: np.random.Generator) -> tuple[int, int, int]:
    values = lot.integers(10, 246, 3)
    return tuple(int(value) for value in values.mean() + (values - values.mean()) * lot.uniform(0.3, 1.0))


def enlarged(values: np.ndarray, width: int, height: int) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def turned(lot: np.random.Generator, glyph: np.ndarray, size: float) -> Image.Image:
    thing = Image.fromarray(np.ascontiguousarray(glyph[:, ::-1] if lot.random() < 0.3 else glyph))
    stretch = float(np.exp(lot.normal(0, 0.06)))
    thing = thing.resize((max(8, round(size * stretch)), max(8, round(size / stretch))), Image.Resampling.BICUBIC)
    if lot.random() < 0.8:
        thing = thing.rotate(float(lot.normal(0, 11)), Image.Resampling.BICUBIC, expand=True)
    return thing


def place(lot: np.random.Generator, thing: tuple[int, int], size: float, width: int, height: int) -> tuple[int, int]:
    """Inside the central square, because CLIP's preprocessing crops to it."""
    slack = max(0.0, (min(width, height) - size) / 2)
    x, y = lot.uniform(-slack, slack, 2) * 0.95
    return round(width / 2 + x - thing[0] / 2), round(height / 2 + y - thing[1] / 2)


def shadow(lot: np.random.Generator, picture: Image.Image, thing: Image.Image, left: int, top: int, side: int) -> None:
    # Shrinking and enlarging the silhouette is a cheap blur.
    alpha = thing.getchannel("A")
    softness = int(lot.integers(4, 10))
    soft = alpha.resize((max(2, alpha.width // softness), max(2, alpha.height // softness)), Image.Resampling.BOX)
    strength = lot.uniform(0.2, 0.6)
    soft = soft.resize(alpha.size, Image.Resampling.BICUBIC).point([int(value * strength) for value in range(256)])
    x, y = lot.uniform(-0.05, 0.05) * side, lot.uniform(0.0, 0.08) * side
    picture.paste((0, 0, 0), (round(left + x), round(top + y)), soft)


def relit(lot: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Light, contrast, a tint and grain."""
    gain = lot.uniform(0.75, 1.2) * np.exp(lot.normal(0, 0.05, 3))
    offset = lot.uniform(-18, 18)
    tables = [np.clip((np.arange(256) - 128) * channel + 128 + offset, 0, 255).astype(np.uint8) for channel in gain]
    picture = picture.point(np.concatenate(tables).tolist())
    if lot.random() < 0.5:
        grain = GRAIN[int(lot.integers(1, len(GRAIN)))]
        values = np.asarray(picture).astype(np.int16)
        rows, columns = -(-values.shape[0] // len(grain)), -(-values.shape[1] // len(grain))
        values += np.tile(grain, (rows, columns))[: values.shape[0], : values.shape[1], None]
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return picture


GRAIN = [np.random.default_rng(strength).normal(0, strength, (127, 127)).astype(np.int16) for strength in range(9)]
