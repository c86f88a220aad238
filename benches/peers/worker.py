"""What a process does that holds one system: it reads requests, a line of JSON each, and answers with how long they took.

The clock runs here, beside the system, and not across the pipe to the bench. A system is a class with `text(text)` and
`photo(bytes)`; what it needs ready before the clock starts comes from `ready_text` and `ready_photo`.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

BATCH = 8


class System:
    """What a system has by default."""

    def ready_text(self, text: str) -> Any:
        return text

    def ready_photo(self, data: bytes) -> Any:
        return data

    def photos(self, ready: list[Any]) -> None:
        """Many photos: those that come together, in the batches that suit the system."""
        raise NotImplementedError

    def search(self, text: str) -> None:
        raise NotImplementedError

    def before_photos(self) -> None:
        """What has to be undone before the same photos may come again."""

    def has_embedded(self, kind: str, count: int) -> None:
        """Told after each request, to check that nothing came out of a cache."""

    def for_a_client(self) -> "System":
        """What one of several clients at once uses."""
        return self


def serve(system: System) -> None:
    answers = {"text": text, "photo": photo, "search": search, "bulk": bulk, "clients": clients, "vectors": vectors, "call": call}
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


def bulk(system: System, files: list[str]) -> list[float]:
    """How long each took of many."""
    system.before_photos()
    ready = [system.ready_photo(Path(file).read_bytes()) for file in files]
    took = timed(system.photos, ready)
    system.has_embedded("image", len(files))
    return [took / len(files)]


def clients(system: System, clients: int, texts: list[str], seconds: float) -> dict:
    """Texts by so many clients at once: how many were done in a second, and how long each took."""
    left, lock = iter(texts), threading.Lock()
    handles = [system.for_a_client() for _ in range(clients)]
    took: list[float] = []
    end = time.perf_counter() + seconds

    def work(handle: System) -> None:
        while time.perf_counter() < end:
            with lock:
                ready = handle.ready_text(next(left))
            took.append(timed(handle.text, ready))

    threads = [threading.Thread(target=work, args=(handle,)) for handle in handles]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    system.has_embedded("text", len(took))
    return {"rate": len(took) / seconds, "ms": took}


def vectors(system: System, texts: list[str], files: list[str]) -> dict:
    photos = [system.photo(system.ready_photo(Path(file).read_bytes())) for file in files]
    return {
        "texts": [list(map(float, system.text(system.ready_text(text)))) for text in texts],
        "photos": [list(map(float, photo)) for photo in photos],
    }


def call(system: System, name: str, times: int) -> list[float]:
    """What only this system does."""
    return [timed(getattr(system, name)) for _ in range(times)]


def timed(work: Callable, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - start) * 1e3
