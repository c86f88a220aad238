"""The results of a run, as Markdown."""

import systems
from parts import Bench, Row
from systems import OLD_STACK, PG_CLIP_INT8, System

INTRODUCTION = """\
In brackets: how many times as fast pg_clip is in that precision; below 1 it is slower. A figure is the median of rounds
in which the systems take turns, a ratio that of the rounds' ratios. All have the same random weights in ViT-B/32's shapes.

- **pg_clip**: SQL over a Unix socket, one connection, prepared statements; a COPY into a watched table for many photos.
- **transformers.js**: in process in Node, texts unpadded; many photos in batches of 8, not stored.
- **open_clip**: in process in Python, texts padded to 77; many photos in batches of 8, not stored.
- **old stack**: Flask and OpenAI's CLIP in PyTorch behind HTTP, photos as base64 in JSON; many photos one by one, stored in pgvector.
- **ONNX Runtime alone**: from Python, on token ids and pixels that are ready: neither tokenizing, decoding, resizing nor storing.
  What no system on this runtime can beat without other settings or larger batches.
"""

# pg_clip in each precision, and the systems that it is compared with; the old stack has no other precision than its own.
COLUMNS = {
    "fp32": [system for system in systems.ALL if system.precision == "fp32"],
    "int8": [PG_CLIP_INT8, *[system for system in systems.ALL if system.precision == "int8" and system != PG_CLIP_INT8], OLD_STACK],
}


def markdown(bench: Bench, machine: list[str]) -> str:
    lines = ["# pg_clip beside what people would otherwise run", "", "Written by `cargo xtask bench peers`.", "", *machine, ""]
    lines += INTRODUCTION.splitlines()
    for precision, columns in COLUMNS.items():
        rows = [row for row in bench.rows if any(system in row.figures for system in columns if system.precision == precision)]
        if rows:
            lines += ["", f"## Against pg_clip in {precision}", "", *table(rows, precision)]
    lines += ["", "## The same vectors", "", "The least cosine with ONNX Runtime in fp32 on Pillow's pixels.", ""]
    lines += ["| | texts | photos |", "|---|---:|---:|"]
    lines += [f"| {system} | {least['texts']:.5f} | {least['photos']:.5f} |" for system, least in bench.cosines.items()]
    if bench.notes:
        lines += ["", "## The machine's limit", "", *[f"- {note}" for note in bench.notes]]
    return "\n".join(lines) + "\n"


def table(rows: list[Row], precision: str) -> list[str]:
    columns = COLUMNS[precision]
    lines = ["| | " + " | ".join(label(system, precision) for system in columns) + " |", "|---|" + "---:|" * len(columns)]
    return lines + [f"| {row.name} ({row.unit}) | " + " | ".join(cell(row, system, columns[0]) for system in columns) + " |" for row in rows]


def label(system: System, precision: str) -> str:
    return str(system).removesuffix(f" {precision}")


def cell(row: Row, system: System, base: System) -> str:
    if system not in row.figures:
        return ""
    figure = number(row.median(system))
    return figure if system == base or base not in row.figures else f"{figure} ({row.ratio(system, base):.2f}x)"


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
