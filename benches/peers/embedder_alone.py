"""The embedder of a running server once more, on so many processors, without PostgreSQL: its speed on them.

    python embedder_alone.py SOCKET MODEL CLIENTS SECONDS

That is one process of clients of texts: Python would hold up more in one process.
"""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from inputs import WORDS

# As src/wire has them.
PROTOCOL, HELLO, EMBED_TEXT, EMBED_BULK_IMAGE, DESCRIBE, EMBEDDING = 4, 1, 2, 6, 5, 17
LISTENS_ON = 0
CLIENT_PROCESSES = 8


class Embedder:
    def __init__(self, running: int, model: str, processors: int) -> None:
        """Starts one as the process `running` was started, on the first so many processors."""
        self.model = model
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/socket"
        arguments = Path(f"/proc/{running}/cmdline").read_bytes().decode().split("\0")[1:-1]
        kept = [argument for argument in arguments if not argument.startswith(("--listen-fd", "--model=", "--threads"))]
        first = ",".join(map(str, sorted(os.sched_getaffinity(0))[:processors]))
        command = [
            "taskset", "--cpu-list", first, os.path.realpath(f"/proc/{running}/exe"), *kept,
            f"--listen-fd={LISTENS_ON}", f"--model={model}", "--threads=0",
        ]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.path)
            listener.listen(128)
            environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
            # The socket is its standard input, as the guardian has it.
            self.process = subprocess.Popen(command, env=environment, stdin=listener, stdout=subprocess.DEVNULL)
        self.connect().describe()

    def connect(self) -> "Connection":
        return Connection(self.path, self.model)

    def photos_a_second(self, photos: list[bytes], connections: int = 4) -> float:
        """Bulk images by several connections, each of which sends all of them at once."""
        threads = [threading.Thread(target=self.connect().bulk, args=(photos,)) for _ in range(connections)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return connections * len(photos) / (time.perf_counter() - start)

    def texts_a_second(self, clients: int, seconds: float) -> float:
        command = [sys.executable, __file__, self.path, self.model, str(clients // CLIENT_PROCESSES), str(seconds)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(CLIENT_PROCESSES)]
        return sum(json.loads(process.communicate()[0]) for process in processes)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


class Connection:
    def __init__(self, path: str, model: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.model = model.encode()
        self.send(HELLO, b"pg_clip\0" + struct.pack("<HII", PROTOCOL, 1, 1))
        self.receive()

    def describe(self) -> None:
        """Answered once the model is loaded."""
        self.send(DESCRIBE, self.head())
        self.receive()

    def text(self, text: str) -> None:
        self.send(EMBED_TEXT, self.head() + text.encode())
        self.vector()

    def bulk(self, photos: list[bytes]) -> None:
        def send() -> None:
            for photo in photos:
                head = struct.pack("<IQ", 1, 10**9) + bytes([len(self.model)]) + self.model
                self.send(EMBED_BULK_IMAGE, head + photo)

        sender = threading.Thread(target=send)
        sender.start()
        for _ in photos:
            self.vector()
        sender.join()

    def head(self) -> bytes:
        return struct.pack("<I", 1) + bytes([len(self.model)]) + self.model

    def vector(self) -> None:
        kind, body = self.receive()
        if kind != EMBEDDING:
            raise SystemExit(f"no vector: {body!r}")

    def send(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack("<IB", len(body), kind) + body)

    def receive(self) -> tuple[int, bytes]:
        length, kind = struct.unpack("<IB", self.exactly(5))
        return kind, self.exactly(length)

    def exactly(self, length: int) -> bytes:
        received = self.socket.recv(length, socket.MSG_WAITALL)
        if len(received) != length:
            raise SystemExit("the embedder has gone")
        return received


def main(path: str, model: str, clients: int, seconds: float) -> None:
    end, done = time.perf_counter() + seconds, []

    def client() -> None:
        connection, chance = Connection(path, model), random.Random()
        while time.perf_counter() < end:
            connection.text(" ".join(chance.choices(WORDS, k=5)))
            done.append(None)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(len(done) / seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
