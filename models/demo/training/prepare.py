"""Makes glyphs, concepts and their words out of three Debian packages.

The demo model has to be trained where no data set can be fetched. A Linux distribution does carry one: a colour emoji font
draws more than a thousand everyday things, and Unicode names and annotates every one of them.

    fonts-noto-color-emoji   the glyphs                SIL OFL 1.1 (the font), Apache-2.0 (its build files)
    unicode-data             emoji-test.txt: names     Unicode data files licence
    unicode-cldr-core        annotations: keywords     Unicode-DFS-2016

Reads   WORK/debs/*.deb (fetched with `apt-get download` where they are missing)
Writes  WORK/glyphs.npy      uint8 [concepts, 128, 128, 4]
        WORK/concepts.json   name, emoji, group, subgroup, keywords, broad words
        split.json           what is kept out of the training texts; beside this file, committed
"""

import argparse
import json
import random
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PACKAGES = {
    "fonts-noto-color-emoji": "2.042-0+deb12u1",
    "unicode-data": "15.0.0-1",
    "unicode-cldr-core": "41-0.1",
}
GLYPH_SIZE = 128
SPLIT_FILE = Path(__file__).with_name("split.json")
PRUNED_FILE = Path(__file__).with_name("pruned.json")

DROPPED_GROUPS = {"Flags", "Symbols", "Component"}
DROPPED_SUBGROUPS = {"family", "person-symbol", "hands"}
DROPPED_NAME_PARTS = (
    "skin tone", "o’clock", "-thirty", " moon", "couple with heart", "kiss:", "people holding hands", "women holding hands",
    "men holding hands", "right-facing", "facing right",
)
HAIR = ("red hair", "curly hair", "white hair", "bald", "blond hair", "beard")

# The words people search by that are broader than the annotations: ours, keyed by Unicode's subgroups.
BROAD_WORDS = {
    "animal-": ["animal", "animals", "wildlife", "nature"],
    "cat-face": ["animal", "animals", "face"],
    "monkey-face": ["animal", "animals", "face"],
    "animal-mammal": ["mammal", "wild animal"],
    "animal-bird": ["bird", "birds"],
    "animal-reptile": ["reptile"],
    "animal-marine": ["sea animal", "sea life", "ocean"],
    "animal-bug": ["insect", "bug", "insects"],
    "plant-": ["plant", "plants", "nature"],
    "plant-flower": ["flower", "flowers"],
    "food-": ["food", "something to eat", "eating"],
    "food-fruit": ["fruit", "fruits"],
    "food-vegetable": ["vegetable", "vegetables"],
    "food-prepared": ["meal", "dish"],
    "food-asian": ["asian food", "meal"],
    "food-marine": ["seafood"],
    "food-sweet": ["dessert", "sweets", "sweet food"],
    "drink": ["drink", "drinks", "something to drink", "beverage"],
    "dishware": ["kitchen", "tableware"],
    "place-building": ["building", "buildings", "architecture"],
    "place-religious": ["building", "religion"],
    "place-geographic": ["landscape", "place"],
    "transport-": ["vehicle", "vehicles", "transport", "travel"],
    "transport-water": ["boat", "boats"],
    "transport-air": ["flying", "aircraft"],
    "sky & weather": ["weather", "sky"],
    "sport": ["sport", "sports"],
    "person-sport": ["sport", "sports", "athlete"],
    "game": ["game", "games", "toy"],
    "clothing": ["clothes", "clothing", "something to wear", "fashion"],
    "music": ["music"],
    "musical-instrument": ["music", "instrument", "musical instrument", "instruments"],
    "phone": ["electronics", "communication"],
    "computer": ["electronics", "computer", "technology"],
    "book-paper": ["paper", "reading"],
    "money": ["money"],
    "writing": ["writing", "stationery"],
    "office": ["office", "stationery"],
    "tool": ["tool", "tools", "equipment"],
    "science": ["science", "laboratory"],
    "medical": ["medicine", "medical"],
    "household": ["household", "home"],
    "face-smiling": ["happy", "smile"],
    "face-concerned": ["sad", "unhappy"],
    "face-": ["face", "faces", "smiley", "emotion"],
    "heart": ["heart", "love"],
    "hand-": ["hand", "gesture"],
    "body-parts": ["body", "body part"],
    "person": ["person", "people"],
}
# Queries that a user of the demo is told to try: never held out.
NEVER_HELD_OUT = {
    "music", "food", "animal", "slice", "pizza", "apple", "dog", "cat", "fruit", "sport", "weather", "vehicle", "drink", "tool",
    "instrument", "bird", "flower", "building", "face", "person", "clothing", "game", "love", "happy", "car", "tree",
}
# The words that people try first must survive the look-alikes.
PROMISED = {
    "red apple", "green apple", "tomato", "dog", "cat", "pizza", "guitar", "bicycle", "automobile", "banana", "strawberry", "lemon",
    "horse", "elephant", "rose", "sun", "rainbow", "airplane", "piano", "musical keyboard", "violin", "trumpet", "soccer ball", "basketball",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--concepts", type=int, default=1000, help="how many to keep: the nearest look-alikes go first")
    options = arguments.parse_args()
    tree = unpack(options.work)
    concepts, glyphs = drop_lookalikes(*draw(read_names(tree), tree), options.concepts)
    add_words(concepts, tree)
    SPLIT_FILE.write_text(json.dumps(split(concepts), indent=1, ensure_ascii=False) + "\n")
    np.save(options.work / "glyphs.npy", glyphs)
    (options.work / "concepts.json").write_text(json.dumps(concepts, indent=1, ensure_ascii=False))
    pairs = sum(len(concept["keywords"]) for concept in concepts)
    print(f"{len(concepts)} concepts, {pairs} (concept, keyword) pairs")


def load(work: Path) -> tuple[list[dict], np.ndarray]:
    """The concepts and their glyphs, as this script left them."""
    return json.loads((work / "concepts.json").read_text()), np.load(work / "glyphs.npy", mmap_mode="r")


def kept(concepts: list[dict]) -> list[int]:
    """The concepts that prune.py left, over which the figures are."""
    pruned = set(json.loads(PRUNED_FILE.read_text())) if PRUNED_FILE.exists() else set()
    return [index for index, concept in enumerate(concepts) if concept["name"] not in pruned]


def unpack(work: Path) -> Path:
    """Fetches the packages with the distribution's own client and unpacks them without installing anything."""
    debs, tree = work / "debs", work / "packages"
    debs.mkdir(parents=True, exist_ok=True)
    for package, version in PACKAGES.items():
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=debs, check=True)
        subprocess.run(["dpkg-deb", "-x", next(debs.glob(f"{package}_*.deb")), tree], check=True)
    return tree


def read_names(tree: Path) -> list[dict]:
    concepts, group, subgroup = [], "", ""
    for line in (tree / "usr/share/unicode/emoji/emoji-test.txt").read_text().splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif "; fully-qualified" in line:
            emoji, _version, name = line.split("# ", 1)[1].split(" ", 2)
            if group in DROPPED_GROUPS or subgroup in DROPPED_SUBGROUPS or any(part in name for part in DROPPED_NAME_PARTS):
                continue
            gendered = group == "People & Body" and ("man " in f"{name} " or "men " in f"{name} ") and "\u200d" in emoji
            if gendered or any(hair in name for hair in HAIR):
                continue
            concepts.append({"emoji": emoji, "name": name.lower(), "group": group, "subgroup": subgroup})
    return concepts


def draw(concepts: list[dict], tree: Path) -> tuple[list[dict], np.ndarray]:
    font = ImageFont.truetype(str(tree / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"), 109)
    drawn, glyphs = [], []
    for concept in concepts:
        canvas = Image.new("RGBA", (400, 160), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).text((4, 4), concept["emoji"], font=font, embedded_color=True)
        box = canvas.getbbox()
        # A sequence that the font cannot join comes out as several glyphs side by side.
        if box is None or box[2] - box[0] > 150:
            continue
        glyph = canvas.crop(box)
        side = max(glyph.size)
        square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
        drawn.append(concept)
        glyphs.append(np.asarray(square.resize((GLYPH_SIZE, GLYPH_SIZE), Image.Resampling.BICUBIC)))
    return drawn, np.stack(glyphs)


def drop_lookalikes(concepts: list[dict], glyphs: np.ndarray, wanted: int) -> tuple[list[dict], np.ndarray]:
    """Drops one of the two most alike glyphs, mirrored or not, until `wanted` are left."""
    alpha = glyphs[..., 3:].astype(np.float32) / 255
    on_grey = glyphs[..., :3] / 255 * alpha + 0.5 * (1 - alpha)
    small = on_grey[:, 4:124].reshape(len(glyphs), 24, 5, 128, 3).mean(2)[:, :, 4:124].reshape(-1, 24, 24, 5, 3).mean(3) - 0.5
    flat, mirrored = small.reshape(len(small), -1), small[:, :, ::-1].reshape(len(small), -1)
    norms = np.linalg.norm(flat, axis=1)
    closeness = np.maximum(flat @ flat.T, flat @ mirrored.T) / np.outer(norms, norms)
    np.fill_diagonal(closeness, -1)
    alive = np.ones(len(concepts), bool)
    while alive.sum() > wanted:
        first, second = np.unravel_index(closeness.argmax(), closeness.shape)
        # The longer name is the more special one: "dog" outlives "guide dog".
        loser = max(first, second, key=lambda index: (concepts[index]["name"] not in PROMISED, len(concepts[index]["name"]), index))
        if concepts[loser]["name"] in PROMISED:
            closeness[first, second] = closeness[second, first] = -1
            continue
        alive[loser] = False
        closeness[loser, :] = closeness[:, loser] = -1
    return [concept for concept, kept in zip(concepts, alive) if kept], glyphs[alive]


def add_words(concepts: list[dict], tree: Path) -> None:
    annotations: dict[str, list[str]] = {}
    for folder in ("annotations", "annotationsDerived"):
        for element in ElementTree.parse(tree / f"usr/share/unicode/cldr/common/{folder}/en.xml").iter("annotation"):
            if element.get("type") != "tts" and element.text:
                annotations[element.get("cp").replace("\ufe0f", "")] = [word.strip().lower() for word in element.text.split("|")]
    for concept in concepts:
        found = annotations.get(concept["emoji"].replace("\ufe0f", ""), [])
        concept["keywords"] = [word for word in found if word != concept["name"]]
        broad = [word for prefix, words in BROAD_WORDS.items() if concept["subgroup"].startswith(prefix) for word in words]
        concept["broad"] = sorted(set(broad) - {concept["name"]} - set(concept["keywords"]))


def split(concepts: list[dict]) -> dict:
    """The words that the training never says, drawn by lot: whole keywords, and (concept, keyword) pairs whose keyword other concepts still carry."""
    lot = random.Random(20261123)
    holders: dict[str, list[str]] = {}
    for concept in concepts:
        for word in concept["keywords"]:
            holders.setdefault(word, []).append(concept["name"])
    names = {concept["name"] for concept in concepts}
    broad = {word for words in BROAD_WORDS.values() for word in words}
    eligible = sorted(word for word in holders if word not in NEVER_HELD_OUT | names | broad)
    keywords = sorted(lot.sample(eligible, 80))
    shared = [
        (concept["name"], word)
        for concept in concepts
        for word in concept["keywords"]
        if word not in NEVER_HELD_OUT and word not in keywords and len(holders[word]) >= 4 and len(concept["keywords"]) >= 3
    ]
    pairs = sorted(lot.sample(shared, min(150, len(shared) // 5)))
    return {"keywords": keywords, "pairs": [list(pair) for pair in pairs]}


if __name__ == "__main__":
    main()
