"""Composes the demo's photos and its query pictures, from seeds that the training never saw.

A demo folder should look like one: JPEGs mostly, some PNGs and WebPs, landscape, portrait and square, no two sizes alike, in three
projects that overlap, so that a search filtered by project has something to leave out.

Writes  photos/*.jpg|png|webp, photos/manifest.json, photos/queries/*, photos/queries/manifest.json
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

import compose
import prepare
from texts import with_article

DELIVERED = Path(__file__).resolve().parent.parent
LARGEST_FILE = 10_000

# Each group of concepts, and the projects that its pictures take turns in.
GROUPS = (
    (("kitchen",), "pizza, hamburger, french fries, sandwich, taco, bread, croissant, pancakes, cheese wedge, egg, popcorn, spaghetti, sushi, birthday cake, cupcake, doughnut, cookie, pie, hot dog, shortcake"),
    (("kitchen", "garden"), "red apple, green apple, banana, grapes, watermelon, lemon, strawberry, pineapple, cherries, tomato, avocado, carrot, broccoli, mushroom, hot pepper, ear of corn, pear"),
    (("kitchen", "travel"), "ice cream, wine glass, beer mug, hot beverage, tropical drink, teapot"),
    (("kitchen",), "fork and knife, kitchen knife, spoon, chopsticks, jar, candle, light bulb, key, scissors, chair"),
    (("garden",), "dog, dog face, cat, cat face, rabbit, hedgehog, mouse, chicken, rooster, duck, owl, frog, snail, butterfly, honeybee, spider, lady beetle"),
    (("garden", "travel"), "horse, elephant, lion, tiger, giraffe, zebra, bear, penguin, crocodile, turtle, snake, dolphin, octopus, shark, peacock, camel"),
    (("garden",), "rose, sunflower, tulip, cactus, deciduous tree, potted plant, maple leaf, bucket, ladder, axe, hammer, saw, wrench"),
    (("garden", "travel"), "sun, rainbow, snowflake, snowman, cloud with rain, cloud with lightning, umbrella, tornado"),
    (("travel",), "bicycle, automobile, bus, train, tram, motorcycle, airplane, helicopter, sailboat, ferry, tractor, fire engine, rocket"),
    (("travel",), "castle, house, tent, mountain, volcano, ferris wheel, beach with umbrella, camera, luggage, backpack, sunglasses, watch"),
    (("travel", "garden"), "soccer ball, basketball, tennis, person surfing, skier, kite, ping pong"),
    (("travel", "kitchen"), "guitar, violin, trumpet, drum, saxophone, accordion, musical notes, radio, book, open book, microphone"),
)
QUERIES = ("pizza", "dog", "guitar", "bicycle")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--out", type=Path, default=DELIVERED / "photos")
    options = arguments.parse_args()
    concepts, glyphs = prepare.load(options.work)
    known = {concept["name"]: index for index, concept in enumerate(concepts)}
    (options.out / "queries").mkdir(parents=True, exist_ok=True)
    for old in (*options.out.glob("*.*"), *options.out.glob("queries/*.*")):
        old.unlink()
    photos = []
    for projects, names in GROUPS:
        for name in (name for name in names.split(", ") if name in known):
            for picture in range(3 if known[name] % 4 == 0 else 2):
                photo = {"concept": name, "project": projects[picture % len(projects)], "caption": f"a photo of {with_article(name)}"}
                photo["file"] = save(options.out, name, picture, glyphs[known[name]], compose.seed_of(compose.PHOTOS, known[name], picture))
                photos.append({key: photo[key] for key in ("file", "concept", "project", "caption")})
    queries = [
        {"file": save(options.out / "queries", name, 0, glyphs[known[name]], compose.seed_of(compose.QUERIES, known[name], 0)), "concept": name}
        for name in QUERIES
    ]
    write(options.out / "manifest.json", photos)
    write(options.out / "queries/manifest.json", queries)
    sizes = [(options.out / photo["file"]).stat().st_size for photo in photos]
    print(f"{len(photos)} photos of {len({photo['concept'] for photo in photos})} concepts, {sum(sizes)} bytes, largest {max(sizes)}")


def save(folder: Path, name: str, picture: int, glyph: np.ndarray, seed: int) -> str:
    lot = np.random.default_rng(seed + 5 * 10**4)
    kind = lot.choice(["jpg", "png", "webp"], p=[0.62, 0.25, 0.13])
    long = int(lot.integers(240, 300)) if kind == "png" else int(lot.integers(320, 641))
    short = max(240, round(long / lot.choice([1.0, 1.25, 4 / 3, 1.5, 16 / 9])))
    width, height = (long, short) if lot.random() < 0.6 else (short, long)
    encoded, kind = encode(compose.compose(glyph, seed, width, height)[0], kind)
    file = f"{name.replace(' ', '-')}-{picture + 1}.{kind}"
    (folder / file).write_bytes(encoded)
    return file


def encode(image: Image.Image, kind: str) -> tuple[bytes, str]:
    """The best quality that fits; a picture that no palette fits becomes a JPEG, as it would have in a camera."""
    if kind == "png":
        attempts = [(image.quantize(colours, dither=Image.Dither.NONE), "PNG", {"optimize": True}) for colours in (160, 96, 64, 48)]
    else:
        attempts = []
    lossy = "WEBP" if kind == "webp" else "JPEG"
    attempts += [(image, lossy, {"quality": quality}) for quality in range(90, 10, -5)]
    for picture, format_name, settings in attempts:
        buffer = io.BytesIO()
        picture.save(buffer, format_name, **settings)
        if buffer.tell() <= LARGEST_FILE:
            break
    return buffer.getvalue(), {"PNG": "png", "WEBP": "webp", "JPEG": "jpg"}[format_name]


def write(path: Path, entries: list[dict]) -> None:
    path.write_text("[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()
