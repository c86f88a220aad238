"""Measures pg_clip and the systems that people would otherwise run, in one run on one machine: all of it, or one part.

    cargo xtask bench peers [PART,PART,…]

That makes the model and a server, and calls this. A run of all parts writes result.md and result.svg beside this file; that of some
goes to the folder of the model, and both are printed.
"""

import argparse
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import chart
import inputs
import parts
import report
from systems import HERE, Processes

# So many processors may be busy with something else.
QUIET = 0.2


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--work", type=Path, required=True, help="the folder of the model and the photos")
    arguments.add_argument("--packages", type=Path, required=True, help="the folder of node_modules")
    arguments.add_argument("--node", default="node")
    arguments.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts.PARTS))
    options = arguments.parse_args()
    say("photos")
    photos = inputs.photos(options.work / "photos")
    bench = parts.Bench(Processes(options.work / "models", options.packages, options.node), photos)
    start, busy = time.monotonic(), other_work()
    chosen = {part: parts.PARTS[part] for part in options.parts} or parts.PARTS
    try:
        say("the vectors agree")
        parts.agreement(bench, [system for _, of in chosen.values() for system in of])
        for name, (part, _) in chosen.items():
            say(name)
            part(bench)
    except (Exception, SystemExit):
        # Earlier results are not lost.
        print(report.markdown(bench, ["This run did not come to its end."]), file=sys.stderr)
        raise
    finally:
        bench.processes.end()
    minutes = (time.monotonic() - start) / 60
    machine = [
        f"{processor()}, {len(os.sched_getaffinity(0))} processors. {date.today()}, {minutes:.0f} minutes.",
        f"Other work kept {busy:.1f} processors busy before the run and {(after := other_work()):.1f} after it.",
    ]
    if max(busy, after) > QUIET:
        machine.append("Other work ran beside it at the beginning or the end: the ratios tell more than the times.")
    if options.parts:
        machine.append(f"Parts of the bench: {', '.join(chosen)}.")
    found = report.markdown(bench, machine)
    print(found)
    results = options.work if options.parts else HERE
    (results / "result.md").write_text(found)
    (results / "result.svg").write_text(chart.svg(bench, machine))


def say(step: str) -> None:
    print(f"{step}:", file=sys.stderr, flush=True)


def processor() -> str:
    """Its name, and the instructions that matter for a multiplication."""
    lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    features = [name for name in known if name in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine())} ({', '.join(features)})"


def other_work(seconds: float = 3) -> float:
    """How many processors work while this program does not."""
    def busy() -> float:
        ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")

    before, start = busy(), time.monotonic()
    time.sleep(seconds)
    return (busy() - before) / (time.monotonic() - start)


if __name__ == "__main__":
    main()
