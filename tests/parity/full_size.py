"""Compares what pg_clip's SQL answers with PyTorch, for models of ViT-B/32's size.

    python full_size.py --work DIR --psql 'cargo xtask psql --'

Builds ViT-B/32 with random weights, with QuickGELU and with GELU, writes it in one layout after the other into
DIR/models, which must be readable by the server, and has the server use it (`clip.models_directory`, reset at the end).
The photos are those of the demo, enlarged to what phones and cameras make and encoded anew as JPEG; the texts are made
of words. Each layout takes 600 MB in DIR and is removed when it is done. Writes tests/parity/models.md.
"""

import argparse
import base64
import json
import random
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import numpy as np
import open_clip
import torch
import transformers
from PIL import Image

import layouts
from clip_models import BASE

CASES = [
    (layouts.transformers_js, "quick_gelu"), (layouts.open_clip_inference, "gelu"), (layouts.immich, "quick_gelu"),
    (layouts.optimum_one_file, "gelu"), (layouts.int8, "quick_gelu"),
]
REPORT = Path(__file__).with_name("models.md")
SIDES = [(640, 480), (480, 640), (1024, 683), (800, 800), (1200, 500), (227, 451)]
WORDS = (
    "a an the photo picture drawing of on in under beside behind with without red green blue old new tiny huge wooden "
    "rainy sunny cat dog horse bird bicycle car train boat bridge river mountain beach kitchen table chair lamp window "
    "pizza apple bread coffee child woman man people crowd guitar piano festival city street night morning winter summer"
).split()


@dataclass
class Psql:
    command: list[str]

    def __call__(self, script: str) -> list[str]:
        arguments = [*self.command, "-XAtq", "-v", "ON_ERROR_STOP=1"]
        # A busy machine may take its time to load a model.
        script = "SET clip.request_timeout = '10min';\n" + script
        done = subprocess.run(arguments, input=script, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return done.stdout.splitlines()

    def vectors(self, query: str) -> list[list[float]]:
        return [json.loads(line) for line in self(query)]

    def milliseconds(self, setup: str, query: str) -> float:
        """The time that psql measures for one query."""
        lines = self(f"{setup}\n\\o /dev/null\n\\timing on\n{query}\n")
        return float(lines[-1].split()[1])


@dataclass
class Row:
    name: str
    activation: str
    images: np.ndarray
    texts: np.ndarray
    load: float
    memory: int
    image_time: float
    text_time: float

    def __str__(self) -> str:
        cosines = [f"{value:.7f}" for all in (self.images, self.texts) for value in (all.min(), all.mean())]
        cells = [
            self.name, self.activation, *cosines, f"{self.load:.1f} s", f"{self.memory / 2**20:.0f} MiB", f"{self.image_time:.0f} ms",
            f"{self.text_time:.1f} ms",
        ]
        return "| " + " | ".join(cells) + " |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True, help="an empty folder for 700 MB")
    arguments.add_argument("--psql", default="cargo xtask psql --", help="a psql that is connected to a superuser's database with pg_clip")
    arguments.add_argument("--photos", type=int, default=24)
    arguments.add_argument("--texts", type=int, default=1000)
    options = arguments.parse_args()
    psql = Psql(shlex.split(options.psql))
    models = (options.work / "models").resolve()
    models.mkdir(parents=True)
    chosen = [options.work / f"{number}.jpg" for number in range(options.photos)]
    for path, photo in zip(chosen, photos()):
        photo.save(path, quality=random.Random(path.name).choice([75, 85, 92]))
    said = list(texts(options.texts))
    psql(f"ALTER SYSTEM SET clip.models_directory = '{models}';\nSELECT pg_reload_conf();")
    rows = []
    try:
        for number, (layout, activation) in enumerate(CASES):
            # A name of its own for each, since a loaded model stays loaded.
            rows.append(measure(psql, models / f"{layout.__name__}-{activation}", layout, activation, number, chosen, said))
            print(rows[-1], flush=True)
            REPORT.write_text(report(rows, options))
    finally:
        psql("ALTER SYSTEM RESET clip.models_directory;\nSELECT pg_reload_conf();")
        shutil.rmtree(options.work)


def measure(psql: Psql, folder: Path, layout, activation: str, seed: int, photos: list[Path], said: list[str]) -> Row:
    name, quoted = folder.name, f"'{folder.name}'"
    reference = layout(layouts.Work(folder, BASE, activation, seed))
    expected_images = [reference.image(photo) for photo in photos]
    expected_texts = reference.texts(said)
    until_there(psql, name)
    load = psql.milliseconds("", f"SELECT clip_embed_text('load', {quoted});") / 1000
    (memory,) = psql(f"SELECT memory_bytes FROM clip_models WHERE name = {quoted}")

    bytes_ = [f"decode('{base64.b64encode(photo.read_bytes()).decode()}', 'base64')" for photo in photos]
    images = psql.vectors("\n".join(f"SELECT to_json(clip_embed_image({photo}, {quoted})::real[]);" for photo in bytes_))
    quoted_texts = ["'" + text.replace("'", "''") + "'" for text in said]
    read = psql.vectors(f"SELECT to_json(v::real[]) FROM unnest(clip_embed_texts(ARRAY[{', '.join(quoted_texts)}], {quoted})) AS v;")
    table = "CREATE TEMP TABLE photos AS SELECT * FROM unnest(ARRAY[" + ", ".join(bytes_) + "]) AS image;"
    pure = "SELECT count(*) FROM (SELECT array_agg(image) AS all_images FROM photos) AS s, "
    pure += f"unnest(all_images, clip_embed_images(all_images, {quoted})) AS t (image, v) WHERE v <> clip_embed_image(image, {quoted});"
    if psql(f"{table}\n{pure}") != ["0"]:
        raise SystemExit(f"{name}: a vector depends on its batch")
    image_time = psql.milliseconds(table, f"SELECT clip_embed_images(array_agg(image), {quoted}) FROM photos;") / len(photos)
    new_texts = [f"'{text} once more'" for text in said[:100] if "'" not in text]
    text_time = sum(
        psql.milliseconds("", f"SELECT clip_embed_text({text}, {quoted});") for text in new_texts[:10]
    ) / min(10, len(new_texts))
    shutil.rmtree(folder)
    return Row(
        layout.__name__, activation, cosines(images, expected_images), cosines(read, expected_texts), load, int(memory), image_time, text_time,
    )


def until_there(psql: Psql, name: str) -> None:
    """A changed setting reaches the embedder with its next start."""
    deadline = time.monotonic() + 60
    while psql(f"SELECT count(*) FROM clip_models WHERE name = '{name}'") != ["1"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"the server does not see the model {name}: can it read the folder?")
        time.sleep(0.2)


def cosines(found: list[list[float]], expected: list[list[float]]) -> np.ndarray:
    found, expected = (np.array(vectors, dtype=np.float64) for vectors in (found, expected))
    return (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


def photos() -> Iterator[Image.Image]:
    files = sorted((layouts.REPOSITORY / "models/demo/photos").glob("*.jpg"))
    for number, file in enumerate(files):
        yield Image.open(file).convert("RGB").resize(SIDES[number % len(SIDES)], Image.Resampling.BICUBIC)


def texts(count: int) -> Iterator[str]:
    chance = random.Random(0)
    for number in range(count):
        words = [chance.choice(WORDS) for _ in range(chance.choice([1, 3, 5, 8, 13, 40, 90]))]
        text = " ".join(words)
        yield chance.choice(["{}", "{}.", "A photo of {}!", "{}, 2024", "it's {}"]).format(text) + (f" #{number}" if number % 3 else "")


def report(rows: list[Row], options: argparse.Namespace) -> str:
    header = "| layout | activation | images, least cosine | mean | texts, least cosine | mean | load and test | memory | an image of many | a text alone |"
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in (torch, transformers, open_clip))
    command = f"python tests/parity/full_size.py --work DIR --psql 'cargo xtask psql --' --photos {options.photos} --texts {options.texts}"
    return "\n".join([
        "# pg_clip against PyTorch, for models of ViT-B/32's size", "",
        f"Written by `{command}` with {versions}.", "",
        f"Random weights; {options.photos} JPEG photos, {options.texts} texts. The reference is PyTorch's vector of what Pillow and torchvision make of",
        "the same bytes. Each photo has the same bits alone and in a batch of all. Times are those of the machine at hand, whatever else it",
        "did; memory is by how much the embedder grew. Cosines are of vectors with six digits.", "",
        header, "|" + " --- |" * 10, *map(str, rows), "",
    ])


if __name__ == "__main__":
    main()
