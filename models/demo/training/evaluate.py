"""Measures how well texts and pictures find pictures, on test pictures that nothing was trained or chosen by.

    evaluate.py --work WORK                      the reference: Pillow and ONNX Runtime, in this process
    evaluate.py --work WORK --psql COMMAND       the real thing: the same pictures through pg_clip's SQL and pgvector's <=>
                                                 (without a COMMAND: `cargo xtask psql --`)

Both run the same queries over the same pictures, so their figures may be held against each other:

    name R@1, R@5     a concept's name finds its picture first / among the first five, in a gallery of one picture a concept;
                      every one of the pictures a concept makes a gallery, the figure is their mean
    picture P@5       the share of a picture's five nearest, itself left out, that show its concept, among all pictures
    caption R@1, R@5  as names, in sentences that the training held out
    keyword hit@10    a keyword never said in training finds a picture of what carries it among the first ten
    pair R@10         a keyword finds among the first ten the concept that it was never said for; its other holders are set aside;
                      of both, those are left out whose concept was told by another text that shares a word with them
"""

import argparse
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import comb
from pathlib import Path

import numpy as np

import compose
import prepare
from preprocess import pixel_values
from texts import HELD_OUT_CAPTIONS, with_article

DELIVERED = Path(__file__).resolve().parent.parent
SHORT_SIDES, ASPECTS = (224, 260), (1.0, 1.25, 4 / 3, 1.5)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--pictures", type=int, default=12, help="a concept")
    arguments.add_argument("--purpose", choices=("test", "validation"), default="test")
    arguments.add_argument("--model", type=Path, default=DELIVERED, help="the folder of the reference")
    arguments.add_argument("--psql", nargs="?", const="cargo xtask psql --")
    arguments.add_argument("--all-concepts", action="store_true", help="the pruned ones too")
    options = arguments.parse_args()
    concepts, _ = prepare.load(options.work)
    chosen = list(range(len(concepts))) if options.all_concepts else prepare.kept(concepts)
    seeds = {"test": compose.TEST, "validation": compose.VALIDATION + 5 * 10**8}[options.purpose]
    queries = make_queries(concepts, chosen)
    measure = partial(through_sql, options.psql) if options.psql else partial(reference, options.model)
    figures = measure(options.work, chosen, queries, options.pictures, seeds)
    print(f"{len(chosen)} concepts, {options.pictures} pictures each ({options.purpose})")
    for name, value in figures.items():
        print(f"  {name:18} {value:.4f}")
    for name, value in chances(concepts, chosen, queries).items():
        print(f"  {name:18} {value:.4f}   by chance")


def make_queries(concepts: list[dict], chosen: list[int]) -> list[dict]:
    """Each with its text, the concepts that are right, and the concepts that do not count."""
    split, known = json.loads(prepare.SPLIT_FILE.read_text()), set(chosen)
    holders = {}
    for index in chosen:
        for word in concepts[index]["keywords"]:
            holders.setdefault(word, []).append(index)
    numbers = {concepts[index]["name"]: index for index in chosen}
    queries = []
    for index in chosen:
        name = concepts[index]["name"]
        queries.append({"kind": "name", "text": name, "right": [index], "aside": []})
        template = HELD_OUT_CAPTIONS[index % len(HELD_OUT_CAPTIONS)]
        queries.append({"kind": "caption", "text": template.format(n=name, a=with_article(name)), "right": [index], "aside": []})
    for word in split["keywords"]:
        if word in holders and not any(given_away(word, concepts[index], split) for index in holders[word]):
            queries.append({"kind": "keyword", "text": word, "right": holders[word], "aside": []})
    for name, word in split["pairs"]:
        if name in numbers and not given_away(word, concepts[numbers[name]], split):
            others = sorted((set(holders[word]) | ({numbers[word]} if word in numbers else set())) - {numbers[name]})
            queries.append({"kind": "pair", "text": word, "right": [numbers[name]], "aside": others})
    assert all(set(query["right"]) <= known for query in queries)
    return queries


def given_away(word: str, concept: dict, split: dict) -> bool:
    """Whether the concept's name, or a word that was said for it, holds a part of the word: then it takes no guessing."""
    said = [other for other in concept["keywords"] if other not in split["keywords"] and [concept["name"], other] not in split["pairs"]]
    stems = lambda text: {part.rstrip("s") for part in text.replace("-", " ").split()}
    return bool(stems(word) & set().union(*map(stems, [concept["name"], *said, *concept["broad"]])))


def chances(concepts: list[dict], chosen: list[int], queries: list[dict]) -> dict[str, float]:
    keyword = [1 - comb(len(chosen) - len(query["right"]), 10) / comb(len(chosen), 10) for query in queries if query["kind"] == "keyword"]
    pair = [10 / (len(chosen) - len(query["aside"])) for query in queries if query["kind"] == "pair"]
    return {"keyword hit@10": float(np.mean(keyword)), "pair R@10": float(np.mean(pair))}


def encoded_pictures(work: Path, seeds: int, pictures: int, concept: int) -> list[bytes]:
    """A concept's pictures as JPEGs of sizes that make the preprocessing work."""
    _, glyphs = prepare.load(work)
    encoded = []
    for picture in range(pictures):
        seed = compose.seed_of(seeds, concept, picture)
        lot = np.random.default_rng(seed + 5 * 10**4)
        short = int(lot.integers(*SHORT_SIDES))
        long = round(short * lot.choice(ASPECTS))
        width, height = (long, short) if lot.random() < 0.6 else (short, long)
        buffer = io.BytesIO()
        compose.compose(glyphs[concept], seed, width, height)[0].save(buffer, "JPEG", quality=int(lot.integers(78, 93)))
        encoded.append(buffer.getvalue())
    return encoded


def reference(folder: Path, work: Path, chosen: list[int], queries: list[dict], pictures: int, seeds: int) -> dict[str, float]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = session(folder / "text_model.onnx", 2)
    said = [text.run(None, {"input_ids": [clipped(tokenizer.encode(query["text"]).ids)]})[0][0] for query in queries]
    with ProcessPoolExecutor(2) as processes:
        images = np.stack(list(processes.map(partial(embedded_pictures, folder, work, seeds, pictures), chosen, chunksize=16)))
    return figures_of(np.stack(said), images, chosen, queries)


def embedded_pictures(folder: Path, work: Path, seeds: int, pictures: int, concept: int) -> np.ndarray:
    global vision
    if "vision" not in globals():
        vision = session(folder / "vision_model.onnx", 1)
    values = np.stack([pixel_values(encoded) for encoded in encoded_pictures(work, seeds, pictures, concept)])
    return vision.run(None, {"pixel_values": values})[0]


def session(path: Path, threads: int):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def clipped(ids: list[int], context: int = 32) -> list[int]:
    return ids if len(ids) <= context else [*ids[: context - 1], ids[-1]]


def figures_of(said: np.ndarray, images: np.ndarray, chosen: list[int], queries: list[dict]) -> dict[str, float]:
    """The SQL below, in numpy: similarities of texts [queries, 512] to pictures [concepts, pictures, 512]."""
    position = {index: place for place, index in enumerate(chosen)}
    ranks: dict[str, list[np.ndarray]] = {}
    for vector, query in zip(said, queries):
        similarity = images @ vector
        similarity[[position[index] for index in query["aside"]]] = -2
        best = similarity[[position[index] for index in query["right"]]].max(0)
        ranks.setdefault(query["kind"], []).append((similarity > best).sum(0) + 1)
    within = lambda kind, limit: float((np.stack(ranks[kind]) <= limit).mean())
    flat = images.reshape(-1, images.shape[-1])
    owners = np.repeat(np.arange(len(images)), images.shape[1])
    right = 0
    for start in range(0, len(flat), 1000):
        alike = flat[start : start + 1000] @ flat.T
        alike[np.arange(len(alike)), start + np.arange(len(alike))] = -2
        nearest = np.argpartition(-alike, 5, axis=1)[:, :5]
        right += (owners[nearest] == owners[start : start + 1000, None]).sum()
    return {
        "name R@1": within("name", 1), "name R@5": within("name", 5), "picture P@5": right / (5 * len(flat)),
        "caption R@1": within("caption", 1), "caption R@5": within("caption", 5),
        "keyword hit@10": within("keyword", 10), "pair R@10": within("pair", 10),
    }


def through_sql(command: str, work: Path, chosen: list[int], queries: list[dict], pictures: int, seeds: int) -> dict[str, float]:
    psql = subprocess.Popen(
        [*shlex.split(command), "-X", "-q", "-A", "-t", "-F", "|", "-v", "ON_ERROR_STOP=1", "-f", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
    )
    try:
        for statement in script(work, chosen, queries, pictures, seeds):
            psql.stdin.write(statement)
        output, _ = psql.communicate()
    except BrokenPipeError:
        output = ""
    if psql.wait() != 0:
        sys.exit(f"psql ended with {psql.returncode}")
    rows = (line.split("|") for line in output.splitlines() if "|" in line)
    return {name: float(value) for name, value in rows}


def script(work: Path, chosen: list[int], queries: list[dict], pictures: int, seeds: int) -> Iterator[str]:
    yield """
CREATE EXTENSION IF NOT EXISTS pg_clip CASCADE;
SET client_encoding = 'UTF8';
CREATE TEMP TABLE chunk (concept int, picture int, image bytea);
CREATE TEMP TABLE pictures (concept int, picture int, embedding vector(512));
-- In the row and not beside it: each vector is read thousands of times.
ALTER TABLE pictures ALTER embedding SET STORAGE PLAIN;
CREATE TEMP TABLE queries (number int PRIMARY KEY, kind text, query text, right_ones int[], aside int[], embedding vector(512));
COPY queries (number, kind, query, right_ones, aside) FROM STDIN;
"""
    for number, query in enumerate(queries):
        right, aside = ("{" + ",".join(map(str, query[key])) + "}" for key in ("right", "aside"))
        yield f"{number}\t{query['kind']}\t{query['text']}\t{right}\t{aside}\n"
    yield "\\.\nUPDATE queries SET embedding = clip_embed_text(query);\n"
    with ProcessPoolExecutor(2) as processes:
        made = processes.map(partial(encoded_pictures, work, seeds, pictures), chosen, chunksize=8)
        for place, (concept, encoded) in enumerate(zip(chosen, made)):
            if place % 8 == 0:
                yield "COPY chunk FROM STDIN;\n"
            for picture, image in enumerate(encoded):
                yield f"{concept}\t{picture}\t\\\\x{image.hex()}\n"
            if place % 8 == 7 or place == len(chosen) - 1:
                yield "\\.\n" + EMBED_CHUNK
    yield FIGURES


EMBED_CHUNK = """
INSERT INTO pictures
SELECT c.concept, c.picture, e.embedding
FROM (SELECT array_agg(concept ORDER BY concept, picture) AS concepts, array_agg(picture ORDER BY concept, picture) AS numbers,
             array_agg(image ORDER BY concept, picture) AS images FROM chunk) AS gathered,
     LATERAL unnest(gathered.concepts, gathered.numbers) WITH ORDINALITY AS c (concept, picture, place)
     JOIN LATERAL unnest(clip_embed_images(gathered.images)) WITH ORDINALITY AS e (embedding, place) USING (place);
TRUNCATE chunk;
"""

FIGURES = """
ANALYZE pictures;
ANALYZE queries;
CREATE INDEX ON pictures (picture);
CREATE INDEX ON pictures (concept);
-- In every gallery, the rank of the best right picture: one more than the others that are nearer.
CREATE TEMP TABLE ranks AS
WITH best AS (
    SELECT q.number, p.picture, min(p.embedding <=> q.embedding) AS distance
    FROM queries AS q JOIN pictures AS p ON p.concept = ANY (q.right_ones)
    GROUP BY q.number, p.picture
)
SELECT q.kind, 1 + (SELECT count(*) FROM pictures AS other
                    WHERE other.picture = best.picture AND other.embedding <=> q.embedding < best.distance
                      AND other.concept <> ALL (q.right_ones) AND other.concept <> ALL (q.aside)) AS rank
FROM best JOIN queries AS q USING (number);
SELECT figure, avg((rank <= depth)::int)
FROM ranks JOIN (VALUES ('name R@1', 'name', 1), ('name R@5', 'name', 5), ('caption R@1', 'caption', 1), ('caption R@5', 'caption', 5),
                        ('keyword hit@10', 'keyword', 10), ('pair R@10', 'pair', 10)) AS wanted (figure, kind, depth) USING (kind)
GROUP BY figure;
SELECT 'picture P@5', avg((near.concept = p.concept)::int)
FROM pictures AS p, LATERAL (SELECT o.concept FROM pictures AS o WHERE (o.concept, o.picture) <> (p.concept, p.picture)
                             ORDER BY o.embedding <=> p.embedding LIMIT 5) AS near;
"""


if __name__ == "__main__":
    main()
