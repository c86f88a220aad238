"""Composes the training pictures ahead of the training, at the network's inner resolution.

The network's first operation averages 3 x 3 pixels of its 224 x 224 input. Composing at twice that inner resolution and averaging
2 x 2 gives nearly the same 75 x 75 picture for a fifth of the work and of the memory.

Writes  WORK/pool.npy         uint8 [concepts, pictures, 75, 75, 3], the pictures of a concept sorted by glyph size, largest first
        WORK/pool_scale.npy   float32 [concepts, pictures]
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import compose
import prepare

SIDE = 75


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--pictures", type=int, default=100, help="a concept")
    options = arguments.parse_args()
    concepts, _ = prepare.load(options.work)
    shape = (len(concepts), options.pictures)
    np.lib.format.open_memmap(options.work / "pool.npy", mode="w+", dtype=np.uint8, shape=(*shape, SIDE, SIDE, 3)).flush()
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        scales = list(processes.map(partial(fill, options.work, options.pictures), range(len(concepts)), chunksize=8))
    np.save(options.work / "pool_scale.npy", np.stack(scales))


def fill(work: Path, pictures: int, concept: int) -> np.ndarray:
    _, glyphs = prepare.load(work)
    pool = np.lib.format.open_memmap(work / "pool.npy", mode="r+")
    made = []
    for number in range(pictures):
        made.append(picture(glyphs[concept], compose.TRAINING, concept, number))
    made.sort(key=lambda pair: -pair[1])
    for number, (image, _) in enumerate(made):
        pool[concept, number] = image
    return np.array([scale for _, scale in made], np.float32)


def picture(glyph: np.ndarray, purpose: int, concept: int, number: int) -> tuple[np.ndarray, float]:
    image, scale = compose.compose(glyph, compose.seed_of(purpose, concept, number), 2 * SIDE, 2 * SIDE)
    return np.asarray(image).reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3)).round().astype(np.uint8), scale


if __name__ == "__main__":
    main()
