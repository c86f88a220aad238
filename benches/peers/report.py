"""What a run found, as Markdown."""

import systems
from parts import Bench, Row
from systems import PG_CLIP, System

INTRODUCTION = """\
In brackets: how many times as fast pg_clip is, of the same precision; below 1 it is slower. A figure is the median of rounds
in which the systems take turns, a ratio that of the rounds' ratios. All have the same random weights in ViT-B/32's shapes.

- **pg_clip**: SQL over a Unix socket, one connection, prepared statements; a COPY into a watched table for many photos.
- **transformers.js**: in process in Node, texts unpadded; many photos in batches of 8, not stored.
- **open_clip**: in process in Python, texts padded to 77; many photos in batches of 8, not stored.
- **old stack**: Flask and OpenAI's CLIP in PyTorch behind HTTP, photos as base64 in JSON; many photos one by one, stored in pgvector.
- **ONNX Runtime alone**: from Python, on token ids and pixels that are ready: neither tokenizing, decoding, resizing nor storing. No
  system on this runtime can be faster without changing the model or the runtime's settings.
"""


def markdown(bench: Bench, machine: list[str]) -> str:
    lines = ["# pg_clip beside what people would otherwise run", "", "Written by `cargo xtask bench peers`.", "", *machine, ""]
    lines += INTRODUCTION.splitlines()
    for precision in ("fp32", "int8"):
        columns = columns_of(precision)
        rows = [row for row in bench.rows if any(system in row.figures for system in columns)]
        if rows:
            lines += ["", f"## Against pg_clip in {precision}", "", *table(rows, columns)]
    lines += ["", "## The same vectors", "", "The least cosine with ONNX Runtime in fp32 on Pillow's pixels.", ""]
    lines += ["| | texts | photos |", "|---|---:|---:|"]
    lines += [f"| {system} | {least['texts']:.5f} | {least['photos']:.5f} |" for system, least in bench.cosines.items()]
    if bench.notes:
        lines += ["", "## The machine's limit", "", *[f"- {note}" for note in bench.notes]]
    return "\n".join(lines) + "\n"


def columns_of(precision: str) -> list[System]:
    return [system for system in systems.ALL if system.precision == precision]


def table(rows: list[Row], columns: list[System]) -> list[str]:
    heads = [str(system).removesuffix(f" {system.precision}") for system in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    return lines + [f"| {row.name} ({row.unit}) | " + " | ".join(cell(row, system) for system in columns) + " |" for row in rows]


def cell(row: Row, system: System) -> str:
    if system not in row.figures:
        return ""
    figure, base = number(row.median(system)), base_of(row, system)
    return figure if base in (None, system) else f"{figure} ({row.ratio(system, base):.2f}x)"


def base_of(row: Row, system: System) -> System | None:
    """pg_clip in the precision that this system is compared with."""
    return next((base for base in row.figures if base.name == PG_CLIP.name and base.precision == system.precision), None)


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
