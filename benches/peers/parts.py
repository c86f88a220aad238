"""The parts of the bench. In each, the systems take turns, round by round: what else the machine does hits all alike."""

import statistics
import sys
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable

import numpy as np

import inputs
import systems
from systems import PG_CLIP, Processes, System

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
    notes: list[str] = field(default_factory=list)
    seed: int = 0

    def new_texts(self, count: int) -> list[str]:
        """Texts that no system has had."""
        self.seed += 1
        return list(islice(inputs.texts(self.seed), count))

    def measure(self, row: Row, of: Iterable[System], ask: Callable[[System], list[float]], rounds: int = ROUNDS) -> None:
        """Each round starts with another system, after one that does not count."""
        of = list(of)
        self.rows.append(row)
        for number in range(-1, rounds):
            if sys.stderr.isatty():
                print(f"\r  {row.name}: round {max(number, 0)} of {rounds} ", end="", file=sys.stderr, flush=True)
            turn = max(number, 0) % len(of)
            for system in of[turn:] + of[:turn]:
                figure = statistics.median(ask(system))
                if number >= 0:
                    row.figures.setdefault(system, []).append(figure)
        start = "\r" if sys.stderr.isatty() else ""
        print(f"{start}  {row.name}: " + ", ".join(f"{system} {row.median(system):.1f}" for system in of), file=sys.stderr, flush=True)


def agreement(bench: Bench) -> None:
    """No speed counts where the vectors are others: each system against ONNX Runtime on Pillow's pixels."""
    texts = bench.new_texts(16)
    files = [str(path) for paths in bench.photos.values() for path in paths[:2]]
    found = {system: bench.processes.ask(system, "vectors", texts=texts, files=files) for system in systems.ALL}
    for system in systems.ALL:
        reference = found[systems.RUNTIME]
        least = {what: cosines(found[system][what], reference[what]).min() for what in reference}
        line = f"{system}: texts {least['texts']:.5f}, photos {least['photos']:.5f}"
        bench.notes.append(line)
        print(f"  least cosine, {line}", file=sys.stderr, flush=True)
        for what, cosine in least.items():
            if cosine < LEAST_COSINES.get((system.name, what), LEAST_COSINE[system.label]):
                raise SystemExit(f"{system} has other vectors of {what}: {cosine:.5f}")


LEAST_COSINE = {"fp32": 0.999}
# Its resizing is not Pillow's, and the grain of the photos shows it.
LEAST_COSINES = {("transformers.js", "photos"): 0.99}


def cosines(some: list, others: list) -> np.ndarray:
    some, others = np.array(some), np.array(others)
    return (some * others).sum(1) / np.linalg.norm(some, axis=1) / np.linalg.norm(others, axis=1)


def text(bench: Bench) -> None:
    row = Row("a new text of 5 words", "ms")
    bench.measure(row, systems.ALL, lambda system: bench.processes.ask(system, "text", texts=bench.new_texts(15)))


def photo(bench: Bench) -> None:
    for size, files in bench.photos.items():
        files = [str(path) for path in files[:4]]
        row = Row(f"a photo of {size}", "ms")
        bench.measure(row, systems.ALL, lambda system: bench.processes.ask(system, "photo", files=files))


PARTS: dict[str, Callable[[Bench], Any]] = {"text": text, "photo": photo}
