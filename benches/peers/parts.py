"""The parts of the bench. In each, the systems take turns, round by round: other work of the machine hits all alike."""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Callable, Iterable

import numpy as np
import psycopg

import inputs
import systems
from embedder_alone import Embedder
from systems import OLD_STACK, PG_CLIP, PG_CLIP_INT8, RUNTIME, RUNTIME_INT8, Processes, System
from through_sql import WAIT_MS

ROUNDS = 7


@dataclass
class Row:
    """One workload: for each system a figure a round."""

    name: str
    unit: str
    # Whether more is better, as of a rate, and not of a time.
    more_is_better: bool = False
    figures: dict[System, list[float]] = field(default_factory=dict)

    def median(self, system: System) -> float:
        return statistics.median(self.figures[system])

    def ratio(self, system: System, base: System) -> float:
        """How many times as fast `base` is: the median over the rounds, each of which compares neighbours in time."""
        pairs = zip(self.figures[system], self.figures[base])
        return statistics.median(b / s if self.more_is_better else s / b for s, b in pairs)


@dataclass
class Bench:
    processes: Processes
    photos: dict[str, list[Path]]
    rows: list[Row] = field(default_factory=list)
    # The least cosines of each system's vectors of texts and of photos with the reference's.
    cosines: dict[System, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seed: int = 0

    def new_texts(self, count: int) -> list[str]:
        """Texts that no system has had."""
        self.seed += 1
        return list(islice(inputs.texts(self.seed), count))

    def measure(
        self, rows: list[Row], of: Iterable[System], ask: Callable[[System], list[float]], rounds: int = ROUNDS,
    ) -> None:
        """Has the systems take turns, in rounds that each begin with another; `ask` answers a figure for each row.

        Work before the first round does not count.
        """
        of, names = list(of), " and ".join(row.name for row in rows)
        self.rows += rows
        for number in range(-1, rounds):
            if sys.stderr.isatty():
                print(f"\r  {names}: round {max(number, 0)} of {rounds} ", end="", file=sys.stderr, flush=True)
            turn = max(number, 0) % len(of)
            for system in of[turn:] + of[:turn]:
                for row, figure in zip(rows, ask(system), strict=True):
                    if number >= 0:
                        row.figures.setdefault(system, []).append(figure)
        for row in rows:
            found = ", ".join(f"{system} {row.median(system):.1f}" for system in of)
            say(f"  {row.name} ({row.unit}): {found}")


def say(line: str) -> None:
    start = "\r" if sys.stderr.isatty() else ""
    print(start + line, file=sys.stderr, flush=True)


def agreement(bench: Bench, of: list[System]) -> None:
    """No speed counts where the vectors are others: each system against ONNX Runtime on Pillow's pixels, in fp32."""
    of = list(dict.fromkeys([RUNTIME, *of]))
    texts = bench.new_texts(16)
    files = [str(path) for paths in bench.photos.values() for path in paths[:2]]
    found = {system: bench.processes.ask(system, "vectors", texts=texts, files=files) for system in of}
    for system in of:
        least = {what: cosines(found[system][what], found[RUNTIME][what]).min() for what in ("texts", "photos")}
        bench.cosines[system] = least
        say(f"  least cosine, {system}: texts {least['texts']:.5f}, photos {least['photos']:.5f}")
        for what, cosine in least.items():
            if cosine < LEAST_COSINES.get((system.name, what), LEAST_COSINE[system.label]):
                raise SystemExit(f"{system} has other vectors of {what}: {cosine:.5f}")


LEAST_COSINE = {"fp32": 0.999, "bf16": 0.995, "int8": 0.99, "q8": 0.99}
# Its resizing is not Pillow's, and the grain of the photos shows it.
LEAST_COSINES = {("transformers.js", "photos"): 0.99}


def cosines(some: list, others: list) -> np.ndarray:
    some, others = np.array(some), np.array(others)
    return (some * others).sum(1) / np.linalg.norm(some, axis=1) / np.linalg.norm(others, axis=1)


def text(bench: Bench) -> None:
    def ask(system: System) -> list[float]:
        return [statistics.median(bench.processes.ask(system, "text", texts=bench.new_texts(15)))]

    bench.measure([Row("a new text of 5 words", "ms")], systems.ALL, ask)


def cached(bench: Bench) -> None:
    """The cost of a search whose text came before, which no other system remembers; and the time that PostgreSQL adds to any wait:
    processors that have slept for so long take a while to run the backend and the client again.
    """
    def ask(system: System) -> list[float]:
        calls = {"cached": 200, "select_1": 200, "wait": 20}
        *of_texts, wait = [statistics.median(bench.processes.ask(system, "call", name=name, times=times)) for name, times in calls.items()]
        return [*of_texts, wait - WAIT_MS]

    rows = [Row("the same text again", "ms"), Row("SELECT 1", "ms"), Row(f"SELECT pg_sleep, beyond its {WAIT_MS} ms", "ms")]
    bench.measure(rows, [PG_CLIP, PG_CLIP_INT8], ask)


def photo(bench: Bench) -> None:
    for size, files in bench.photos.items():
        def ask(system: System) -> list[float]:
            return [statistics.median(bench.processes.ask(system, "photo", files=list(map(str, files[:4]))))]

        bench.measure([Row(f"a photo of {size}", "ms")], systems.ALL, ask)


def search(bench: Bench) -> None:
    """A new text and the ten nearest of 100,000 rows, whose vectors are random, as one user waits for them."""
    say(f"  storing {SEARCHED:,} vectors and building their HNSW index")
    with psycopg.connect(autocommit=True) as connection:
        for statement in (
            "CREATE TABLE searched (id int PRIMARY KEY, embedding vector(512) NOT NULL)",
            f"""INSERT INTO searched
                SELECT i, ARRAY(SELECT random() - 0.5 FROM generate_series(1, 512) WHERE i > 0)::vector FROM generate_series(1, {SEARCHED}) AS i""",
            "SET maintenance_work_mem = '1GB'",
            "CREATE INDEX ON searched USING hnsw (embedding vector_cosine_ops)",
            "VACUUM ANALYZE searched",
        ):
            connection.execute(statement)

    def ask(system: System) -> list[float]:
        return [statistics.median(bench.processes.ask(system, "search", texts=bench.new_texts(15)))]

    bench.measure([Row(f"a search by a new text in {SEARCHED:,} rows", "ms")], [PG_CLIP, OLD_STACK, PG_CLIP_INT8], ask)


def bulk(bench: Bench) -> None:
    """pg_clip by a COPY into a watched table and the old stack by INSERTs store photos and vectors; the others only embed.

    The limit of the processors is the runtime's best batch and the decoders' own work, over all processors.
    """
    files = list(map(str, bench.photos["2 MP"]))
    row = Row(f"{len(files)} photos of 2 MP, each", "ms")
    bench.measure([row], systems.AT_ONCE, lambda system: bench.processes.ask(system, "bulk", files=files), rounds=3)
    ways = ("photos_by_function", "by one call of clip_embed_images"), ("photos_by_queue", "by COPY and the queue"), ("photos_unwatched", "by COPY, not embedded")
    for way, name in ways:
        one = Row(f"{len(files)} photos of 2 MP {name}, each", "ms")
        bench.measure([one], [PG_CLIP, PG_CLIP_INT8], lambda system: bench.processes.ask(system, "bulk", files=files, way=way), rounds=3)
    decoding = decoder_ms(bench) / len(os.sched_getaffinity(0))
    for ours, runtime in ((PG_CLIP, RUNTIME), (PG_CLIP_INT8, RUNTIME_INT8)):
        limit = row.median(runtime) + decoding
        *by_ways, stored = (one.median(ours) for one in bench.rows[-4:])
        copy, function, queue = (f"{limit / took:.0%}" for took in by_ways)
        bench.notes.append(
            f"{ours}: decoding takes {decoding:.1f} ms a photo over all processors, {runtime} {row.median(runtime):.1f}, and storing {stored:.1f}. "
            f"COPY reaches {copy} of what the first two allow, clip_embed_images {function}, and the queue {queue}."
        )


def decoder_ms(bench: Bench) -> float:
    """The time of decoding and resizing on one processor: by how much longer a photo of 2 MP takes than one of 0.05 MP."""
    def ask(size: str) -> float:
        return statistics.median(bench.processes.ask(PG_CLIP, "photo", files=list(map(str, bench.photos[size][:8]))))

    return statistics.median(ask("2 MP") - ask("0.05 MP") for _ in range(5))


def clients(bench: Bench) -> None:
    for kind, name, numbers in (("text", "new texts", (1, 4, 16, 64)), ("photo", "photos of 0.05 MP", (1, 4, 16))):
        for number in numbers:
            def ask(system: System) -> list[float]:
                what = bench.new_texts(5000) if kind == "text" else list(map(str, bench.photos["0.05 MP"]))
                found = bench.processes.ask(system, "clients", kind=kind, clients=number, inputs=what, seconds=CLIENTS_SECONDS)
                return [found["rate"], float(np.percentile(found["ms"], 95))]

            by = f"{name} by {number} client{'s' * (number > 1)}"
            rows = [Row(by, "a second", more_is_better=True), Row(f"{by}, p95", "ms")]
            bench.measure(rows, systems.AT_ONCE, ask, rounds=2)


def mixed(bench: Bench) -> None:
    """The wait of a search while photos come without a pause."""
    def ask(system: System) -> list[float]:
        files = list(map(str, bench.photos["0.05 MP"]))
        found = bench.processes.ask(system, "beside", texts=bench.new_texts(5000), files=files, clients=8, seconds=CLIENTS_SECONDS)
        return [float(np.percentile(found["ms"], 50)), float(np.percentile(found["ms"], 95)), found["photos"]]

    name = "a new text while 8 clients send photos of 0.05 MP"
    rows = [Row(name, "ms"), Row(f"{name}, p95", "ms"), Row("these photos", "a second", more_is_better=True)]
    bench.measure(rows, systems.AT_ONCE, ask, rounds=2)


def start(bench: Bench) -> None:
    """From the start of a process to its first answer, its files in the system's cache; of pg_clip the embedder's process."""
    def ask(system: System) -> list[float]:
        if system.name == PG_CLIP.name:
            bench.processes.ask(system, "call", name="make_default", times=1)
            return [bench.processes.ask(system, "call", name="restart", times=1)[0] / 1e3]
        bench.processes.end_one(system)
        begun = time.monotonic()
        bench.processes.ask(system, "text", texts=bench.new_texts(1))
        return [time.monotonic() - begun]

    bench.measure([Row("start to first answer", "s")], systems.ALL, ask, rounds=2)


def memory(bench: Bench) -> None:
    """The memory in RAM after a text and a photo, after many photos, and of pg_clip by a hundred more connections."""
    files = {size: list(map(str, paths)) for size, paths in bench.photos.items()}
    rows = [
        Row("memory after a text and a photo", "MB"), Row("memory after 48 photos of 2 MP", "MB"),
        Row("memory six seconds later", "MB"),
    ]
    more = Row("memory of the embedder by 100 more connections", "MB")
    for system in systems.ALL:
        if system.name == PG_CLIP.name:
            bench.processes.ask(system, "call", name="make_default", times=1)
        else:
            bench.processes.end_one(system)
        bench.processes.ask(system, "text", texts=bench.new_texts(1))
        bench.processes.ask(system, "photo", files=files["0.05 MP"][:1])
        rows[0].figures[system] = bench.processes.ask(system, "memory")
        bench.processes.ask(system, "bulk", files=files["2 MP"])
        rows[1].figures[system] = bench.processes.ask(system, "memory")
        time.sleep(6)
        rows[2].figures[system] = bench.processes.ask(system, "memory")
        if system.name == PG_CLIP.name:
            bench.processes.ask(system, "call", name="connections", times=1)
            (after,) = bench.processes.ask(system, "memory")
            bench.processes.ask(system, "call", name="disconnections", times=1)
            more.figures[system] = [after - rows[2].median(system)]
        say(f"  {system}: " + ", ".join(f"{row.median(system):.1f}" for row in [*rows, more] if system in row.figures))
    bench.rows += [*rows, more]


def cores(bench: Bench) -> None:
    """The speed of pg_clip's embedder on one processor and on more, up to all: photos and texts a second."""
    there = len(os.sched_getaffinity(0))
    photos = [path.read_bytes() for path in bench.photos["2 MP"][:12]]
    for processors in [number for number in (1, 2, 4, 8, 16, 32, 64) if number < there] + [there]:
        of = f"{processors} processor{'s' * (processors > 1)}"
        rows = [
            Row(f"photos of 2 MP, {of}", "a second", more_is_better=True),
            Row(f"new texts by 16 clients, {of}", "a second", more_is_better=True),
        ]
        for system in (PG_CLIP, PG_CLIP_INT8):
            bench.processes.ask(system, "text", texts=bench.new_texts(1))
            (running,) = bench.processes.ask(system, "processes")
            embedder = Embedder(running, system.precision, processors)
            try:
                # A process that has just been started has no memory yet, and does not know the model's pace.
                embedder.photos_a_second(photos[:4])
                for row, figure in zip(rows, (embedder.photos_a_second(photos * max(1, processors // 4)), embedder.texts_a_second(16, CLIENTS_SECONDS))):
                    row.figures[system] = [figure]
            finally:
                embedder.end()
        bench.rows += rows
        for row in rows:
            say(f"  {row.name} ({row.unit}): " + ", ".join(f"{system} {row.median(system):.1f}" for system in row.figures))


def peak(bench: Bench) -> None:
    """The speed of the multiplications of an image tower, beside the fastest that the machine can do."""
    peaks: dict[str, list[float]] = {"fp32": [], "int8": []}

    def ask(system: System) -> list[float]:
        found = json.loads(subprocess.check_output([sys.executable, systems.HERE / "peak.py"]))
        peaks[system.precision].append(found[system.precision])
        return bench.processes.ask(system, "bulk", files=[str(bench.photos["0.05 MP"][0])] * 8 * 3)

    row = Row("a picture of 224 x 224 that is ready, in a batch of 8, each", "ms")
    bench.measure([row], [RUNTIME, RUNTIME_INT8], ask, rounds=5)
    for system in (RUNTIME, RUNTIME_INT8):
        most = max(peaks[system.precision])
        share = IMAGE_OPERATIONS / row.median(system) * 1e3 / 1e9 / most
        bench.notes.append(
            f"Matrices of 2048 x 2048 in {system.precision} multiply at {most:.0f} thousand million operations a second; "
            f"{system.name} at a batch of 8 reaches {share:.0%} of that."
        )


CLIENTS_SECONDS = 2
SEARCHED = 100_000
# Of ViT-B/32's image tower: 50 tokens through 12 blocks, and the patches.
IMAGE_OPERATIONS = 2 * (12 * (50 * 12 * 768**2 + 2 * 50 * 50 * 768) + 49 * 3072 * 768 + 768 * 512)

PARTS: dict[str, tuple[Callable[[Bench], None], list[System]]] = {
    "text": (text, systems.ALL), "cached": (cached, [PG_CLIP, PG_CLIP_INT8]), "photo": (photo, systems.ALL),
    "search": (search, [PG_CLIP, OLD_STACK, PG_CLIP_INT8]), "bulk": (bulk, systems.AT_ONCE), "clients": (clients, systems.AT_ONCE),
    "mixed": (mixed, systems.AT_ONCE), "start": (start, systems.ALL), "memory": (memory, systems.ALL), "cores": (cores, [PG_CLIP, PG_CLIP_INT8]), "peak": (peak, [RUNTIME, RUNTIME_INT8]),
}
