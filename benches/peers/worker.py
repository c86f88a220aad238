"""The process that holds one system: it reads requests, a line of JSON each, and answers with how long they took.

The clock runs here, beside the system, and not across the pipe to the bench. A system is a class with `text(text)` and
`photo(bytes)`; what it needs ready before the clock starts comes from `ready_text` and `ready_photo`.
"""

import itertools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

BATCH = 8


class System:
    """The defaults of a system."""

    def ready_text(self, text: str) -> Any:
        return text

    def ready_photo(self, data: bytes) -> Any:
        return data

    def photos(self, ready: list[Any]) -> None:
        """Many photos that come together, in the batches that suit the system."""
        raise NotImplementedError

    def processes(self) -> list[int]:
        """The processes that hold the model, by their ids."""
        return [os.getpid()]

    def search(self, text: str) -> None:
        raise NotImplementedError

    def before_photos(self) -> None:
        """Undoes the effects that would hinder the same photos from coming again."""

    def has_embedded(self, kind: str, count: int) -> None:
        """Told after each request, to check that nothing came out of a cache."""

    def for_a_client(self) -> "System":
        """The system as one of several clients at once uses it."""
        return self


def serve(system: System) -> None:
    answers = {
        "text": text, "photo": photo, "search": search, "bulk": bulk, "clients": clients, "beside": beside, "memory": memory,
        "processes": lambda system: system.processes(),
        "vectors": vectors, "call": call,
    }
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answers[request.pop("do")](system, **request)), flush=True)


def text(system: System, texts: list[str]) -> list[float]:
    took = [timed(system.text, system.ready_text(text)) for text in texts]
    system.has_embedded("text", len(texts))
    return took


def photo(system: System, files: list[str]) -> list[float]:
    took = [timed(system.photo, system.ready_photo(Path(file).read_bytes())) for file in files]
    system.has_embedded("image", len(files))
    return took


def search(system: System, texts: list[str]) -> list[float]:
    """The text embedded, and the rows found that are nearest to it."""
    took = [timed(system.search, text) for text in texts]
    system.has_embedded("text", len(texts))
    return took


def bulk(system: System, files: list[str], way: str = "photos") -> list[float]:
    """How long each took of many, by one of the system's ways."""
    system.before_photos()
    ready = [system.ready_photo(Path(file).read_bytes()) for file in files]
    took = timed(getattr(system, way), ready)
    system.has_embedded("image", len(files))
    return [took / len(files)]


def clients(system: System, kind: str, clients: int, inputs: list[str], seconds: float) -> dict:
    """Texts, or photos from files, by so many clients at once: how many were done in a second, and how long each took."""
    return together([Work(system, kind, inputs, time.perf_counter() + seconds)], [clients])[0]


def beside(system: System, texts: list[str], files: list[str], clients: int, seconds: float) -> dict:
    """Texts by one client while other clients send photos."""
    end = time.perf_counter() + seconds
    of_texts, of_photos = together([Work(system, "text", texts, end), Work(system, "photo", files, end)], [1, clients])
    return {"ms": of_texts["ms"], "photos": of_photos["rate"]}


class Work:
    """The inputs that clients take turns to send until the end. Files are sent again and again."""

    def __init__(self, system: System, kind: str, inputs: list[str], end: float) -> None:
        self.system, self.kind, self.end = system, kind, end
        self.left = iter(inputs) if kind == "text" else itertools.cycle([system.ready_photo(Path(file).read_bytes()) for file in inputs])
        self.lock = threading.Lock()
        self.took: list[float] = []

    def client(self, handle: System) -> None:
        send = getattr(handle, self.kind)
        while time.perf_counter() < self.end:
            with self.lock:
                ready = next(self.left)
                if self.kind == "text":
                    ready = handle.ready_text(ready)
            self.took.append(timed(send, ready))


def together(works: list[Work], clients: list[int]) -> list[dict]:
    threads = [
        threading.Thread(target=work.client, args=(work.system.for_a_client(),))
        for work, number in zip(works, clients, strict=True) for _ in range(number)
    ]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    for work in works:
        work.system.has_embedded({"text": "text", "photo": "image"}[work.kind], len(work.took))
    return [{"rate": len(work.took) / seconds, "ms": work.took} for work in works]


def memory(system: System) -> list[float]:
    """The memory in RAM of the processes that hold the model, in MB."""
    sizes = [Path(f"/proc/{process}/status").read_text() for process in system.processes()]
    return [sum(int(next(line for line in size.splitlines() if line.startswith("VmRSS:")).split()[1]) for size in sizes) / 1024]


def vectors(system: System, texts: list[str], files: list[str]) -> dict:
    photos = [system.photo(system.ready_photo(Path(file).read_bytes())) for file in files]
    return {
        "texts": [list(map(float, system.text(system.ready_text(text)))) for text in texts],
        "photos": [list(map(float, photo)) for photo in photos],
    }


def call(system: System, name: str, times: int) -> list[float]:
    """Calls that only this system has."""
    return [timed(getattr(system, name)) for _ in range(times)]


def timed(work: Callable, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - start) * 1e3
