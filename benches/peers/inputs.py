"""The texts and the photos that all systems get."""

import random
from pathlib import Path
from typing import Iterator

import numpy as np
from PIL import Image

DEMO_PHOTOS = Path(__file__).resolve().parents[2] / "models/demo/photos"
# Width, height and how many.
SIZES = {"0.05 MP": (256, 192, 8), "2 MP": (1632, 1224, 48), "12 MP": (4000, 3000, 4)}
QUALITY = 90
# The standard deviation of the grain, in grey levels.
GRAIN = 6.0
WORDS = (
    "red green blue old new tiny huge wooden rainy sunny cat dog horse bird bicycle car train boat bridge river mountain "
    "beach kitchen table chair lamp window pizza apple bread coffee child woman man people crowd guitar piano festival "
    "city street night morning winter summer picture drawing photo"
).split()


def texts(seed: int) -> Iterator[str]:
    """Texts of five words, each a token, without end; no two runs of one seed differ, no two seeds meet."""
    chance = random.Random(seed)
    while True:
        yield " ".join(chance.choices(WORDS, k=5))


def photos(folder: Path) -> dict[str, list[Path]]:
    """Photos of each size as JPEG files, made where they are not there yet."""
    files = sorted(DEMO_PHOTOS.glob("*.jpg"))
    made = {}
    for size, (width, height, count) in SIZES.items():
        made[size] = [folder / f"{size.replace(' ', '')}-{number}.jpg" for number in range(count)]
        for number, path in enumerate(made[size]):
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                photo(files[number * len(files) // count], width, height, number).save(partial, "JPEG", quality=QUALITY)
                partial.rename(path)
    return made


def photo(file: Path, width: int, height: int, seed: int) -> Image.Image:
    """A photo of the demo, enlarged, with a grain that gives the file the size that a camera's has."""
    enlarged = Image.open(file).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, GRAIN, (height, width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(enlarged) + grain, 0, 255).astype(np.uint8))
