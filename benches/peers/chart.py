"""The results of a run, as a chart: a bar for how long each system takes where pg_clip takes 1."""

from html import escape

import report
from parts import Bench, Row
from systems import PG_CLIP, RUNTIME, System

WIDTH, BAR, GAP = 1100, 15, 12
# Where a half begins, how wide its labels are, and the value of its longest bar.
HALVES = {"fp32": (10, 150, 6.0), "int8": (600, 150, 4.0)}
UNIT = 50
COLOURS = {PG_CLIP.name: "#336791", RUNTIME.name: "#d8d8d8"}
STYLE = "text{font:12px sans-serif;fill:#222} .head{font-weight:bold;font-size:14px} .small{fill:#666}"


def svg(bench: Bench, machine: list[str]) -> str:
    shapes, y = [], 24
    text(shapes, 10, y, "How long each takes where pg_clip takes 1: a shorter bar is faster", "head")
    for line in machine:
        y += BAR + 2
        text(shapes, 10, y, line, "small")
    y += 2 * BAR
    for precision, (x, _, _) in HALVES.items():
        text(shapes, x, y, f"Against pg_clip in {precision}", "head")
    for row in bench.rows:
        halves = [precision for precision in HALVES if is_shown(row, report.COLUMNS[precision])]
        if halves:
            y += BAR + GAP
            text(shapes, 10, y, f"{row.name} ({row.unit})", "")
            for precision in halves:
                for number, system in enumerate(shown(row, precision)):
                    bar(shapes, y + BAR * (number + 1), row, system, precision)
            y += BAR * max(len(shown(row, precision)) for precision in halves)
    return drawing(shapes, y + GAP)


def shown(row: Row, precision: str) -> list[System]:
    return [system for system in report.COLUMNS[precision] if system in row.figures]


def is_shown(row: Row, columns: list[System]) -> bool:
    """Rows that compare, and of the figures of several clients only the rates."""
    return columns[0] in row.figures and any(system in row.figures for system in columns[1:]) and "p95" not in row.name


def bar(shapes: list[str], y: float, row: Row, system: System, precision: str) -> None:
    (x, labels, most), base = HALVES[precision], report.COLUMNS[precision][0]
    ratio = row.ratio(system, base)
    length, colour = min(ratio, most) * UNIT, COLOURS.get(system.name, "#9db4c8")
    text(shapes, x + 14, y, report.label(system, precision), "small")
    shapes.append(f'<rect x="{x + labels}" y="{y - BAR + 4:.0f}" width="{length:.0f}" height="{BAR - 3}" fill="{colour}"/>')
    text(shapes, x + labels + length + 6, y, report.cell(row, system, base) + (" →" if ratio > most else ""), "")


def text(shapes: list[str], x: float, y: float, content: str, style: str) -> None:
    shapes.append(f'<text x="{x:.0f}" y="{y:.0f}" class="{style}">{escape(content)}</text>')


def drawing(shapes: list[str], height: float) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}">'
    ground = f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *shapes, "</svg>"]) + "\n"
