"""What a run found, as a chart: a bar for how long each system takes where pg_clip takes 1."""

from html import escape

import report
from parts import Bench, Row
from systems import PG_CLIP, RUNTIME, System

WIDTH, LABELS, BAR, GAP, MOST = 960, 190, 15, 14, 6.0
UNIT = (WIDTH - LABELS - 200) / MOST
COLOURS = {PG_CLIP.name: "#336791", RUNTIME.name: "#d8d8d8"}
STYLE = "text{font:12px sans-serif;fill:#222} .head{font-weight:bold;font-size:14px} .small{fill:#666}"


def svg(bench: Bench, machine: list[str]) -> str:
    shapes, y = [], 24
    y = text(shapes, 10, y, "How long each takes where pg_clip takes 1; shorter is faster", "head")
    for line in machine:
        y = text(shapes, 10, y, line, "small")
    for precision in ("fp32", "int8"):
        columns = report.columns_of(precision)
        rows = [row for row in bench.rows if is_shown(row, columns)]
        if rows:
            y = text(shapes, 10, y + GAP, f"Against pg_clip in {precision}", "head")
        for row in rows:
            y = text(shapes, 10, y + GAP / 2, f"{row.name}, {row.unit}", "")
            for system in columns:
                if system in row.figures:
                    y = bar(shapes, y, row, system)
    height = y + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}">'
    return "\n".join([head, f"<style>{STYLE}</style>", f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>', *shapes, "</svg>"]) + "\n"


def is_shown(row: Row, columns: list[System]) -> bool:
    """Rows that compare, and of latencies under load only the throughput."""
    return sum(system in row.figures for system in columns) > 1 and "p95" not in row.name and report.base_of(row, columns[0]) is not None


def bar(shapes: list[str], y: float, row: Row, system: System) -> float:
    base = report.base_of(row, system)
    ratio = 1.0 if base == system else row.ratio(system, base)
    length, colour = min(ratio, MOST) * UNIT, COLOURS.get(system.name, "#9db4c8")
    text(shapes, 24, y, str(system), "small")
    shapes.append(f'<rect x="{LABELS}" y="{y - BAR + 4:.0f}" width="{length:.0f}" height="{BAR - 3}" fill="{colour}"/>')
    more = "" if ratio <= MOST else " →"
    figure = report.number(row.median(system)) + more + ("" if base == system else f"  ({ratio:.2f}x)")
    text(shapes, LABELS + length + 6, y, figure, "")
    return y + BAR


def text(shapes: list[str], x: float, y: float, content: str, style: str) -> float:
    shapes.append(f'<text x="{x:.0f}" y="{y:.0f}" class="{style}">{escape(content)}</text>')
    return y + (BAR if style != "head" else 22)
