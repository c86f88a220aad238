"""What a run found, as a Markdown table."""

import systems
from parts import Bench, Row
from systems import PG_CLIP, System


def markdown(bench: Bench, machine: list[str]) -> str:
    lines = ["# pg_clip beside its peers", "", "Written by `cargo xtask bench peers`; see there for what each system does.", ""]
    lines += [f"- {line}" for line in machine]
    for precision in ("fp32", "int8"):
        columns = [system for system in systems.ALL if system.precision == precision]
        rows = [row for row in bench.rows if any(system in row.figures for system in columns)]
        if rows:
            lines += ["", f"## {precision}", "", *table(rows, columns)]
    return "\n".join(lines) + "\n"


def table(rows: list[Row], columns: list[System]) -> list[str]:
    heads = [str(system).removesuffix(f" {system.precision}") for system in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    return lines + [f"| {row.name} ({row.unit}) | " + " | ".join(cell(row, system) for system in columns) + " |" for row in rows]


def cell(row: Row, system: System) -> str:
    if system not in row.figures:
        return ""
    figure = number(row.median(system))
    base = next((s for s in row.figures if s.name == PG_CLIP.name and s.precision == system.precision), system)
    return figure if system == base else f"{figure} ({row.ratio(system, base):.2f}x)"


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
