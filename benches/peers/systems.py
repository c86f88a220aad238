"""The systems that are compared, each in a process of its own that stays for the whole run."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class System:
    name: str
    # The precision of pg_clip that it is compared with, and the name of its own.
    precision: str
    label: str

    def __str__(self) -> str:
        return f"{self.name} {self.label}"


PG_CLIP = System("pg_clip", "fp32", "fp32")
PG_CLIP_INT8 = System("pg_clip", "int8", "int8")
TRANSFORMERS_JS = System("transformers.js", "fp32", "fp32")
OLD_STACK = System("old stack", "fp32", "fp32")
RUNTIME = System("ONNX Runtime alone", "fp32", "fp32")
RUNTIME_INT8 = System("ONNX Runtime alone", "int8", "int8")
OPEN_CLIP_BF16 = System("open_clip", "fp32", "bf16")
ALL = [
    PG_CLIP, TRANSFORMERS_JS, System("open_clip", "fp32", "fp32"), OPEN_CLIP_BF16,
    OLD_STACK, RUNTIME,
    PG_CLIP_INT8, System("transformers.js", "int8", "q8"), RUNTIME_INT8,
]
# Systems whose figures for many inputs tell more than their figures for one: without instructions for bf16, it takes ten times as long as fp32.
AT_ONCE = [system for system in ALL if system != OPEN_CLIP_BF16]


@dataclass
class Processes:
    """Starts a system at its first request, and ends all of them."""

    models: Path
    packages: Path
    node: str
    running: dict[System, subprocess.Popen] = field(default_factory=dict)

    def ask(self, system: System, do: str, **request: Any) -> Any:
        process = self.running.get(system) or self.start(system)
        process.stdin.write(json.dumps({"do": do} | request) + "\n")
        process.stdin.flush()
        return self.answer(system, process)

    def start(self, system: System) -> subprocess.Popen:
        print(f"  starting {system}", file=sys.stderr, flush=True)
        process = subprocess.Popen(self.command(system), cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running[system] = process
        self.answer(system, process)
        return process

    def answer(self, system: System, process: subprocess.Popen) -> Any:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{system} ended: {process.wait()}")
        return json.loads(line)

    def command(self, system: System) -> list[str]:
        precision = system.precision
        weights = self.models / "open_clip.pt"
        python = lambda file, *arguments: [sys.executable, file, *map(str, arguments)]
        match system.name:
            case "pg_clip":
                return python("through_sql.py", precision)
            case "transformers.js":
                return [self.node, "transformers.mjs", str(self.packages), str(self.models), precision, system.label]
            case "open_clip":
                return python("open_clip_peer.py", weights, system.label)
            case "old stack":
                return python("old_stack.py", weights)
            case "ONNX Runtime alone":
                return python("runtime_alone.py", self.models / precision)
        raise ValueError(system)

    def end_one(self, system: System) -> None:
        if process := self.running.pop(system, None):
            process.stdin.close()
            process.wait()

    def end(self) -> None:
        for process in self.running.values():
            process.stdin.close()
        for process in self.running.values():
            process.wait()
        self.running.clear()
