"""Ready tensors and real JPEGs on a GPU by the size of a batch, and the vectors against the processor's. See measure.sh."""

import io
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
import inputs  # noqa: E402
from embedder_alone import DESCRIBE, EMBED_BULK_IMAGE, EMBEDDING, Connection  # noqa: E402

import vit  # noqa: E402

BATCHES, IN_FLIGHT = (1, 4, 16, 64, 128), (1, 8, 32, 64, 256)
SECONDS = 3.0
LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999}
PHOTOS = {"0.05 MP": (256, 192, 48), "2 MP": (1632, 1224, 24)}
STATUS = 4


class Embedder:
    def __init__(self, program: str, models: Path, name: str, provider: str) -> None:
        self.folder, self.name = tempfile.TemporaryDirectory(), name
        path = f"{self.folder.name}/socket"
        found = [str(place) for place in sorted(Path(onnxruntime.__file__).parents[1].glob("nvidia/*/lib"))]
        environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "LD_LIBRARY_PATH": ":".join(found)}
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(16)
            self.process = subprocess.Popen(
                [program, "serve", "--listen-fd=0", f"--models-directory={models}", f"--model={name}",
                 f"--onnxruntime={library()}", f"--execution-provider={provider}"],
                env=environment, stdin=listener,
            )
        self.connection = Connection(path, name)
        self.connection.send(DESCRIBE, self.connection.head())
        self.connection.receive()
        computes = self.status()["execution_provider"]
        if computes != provider:
            error = self.status()["error"]
            self.end()
            raise SystemExit(f"{name}: the embedder computes on {computes} and not on {provider}: {error}")

    def status(self) -> dict:
        self.connection.send(STATUS, struct.pack("<I", 1))
        return json.loads(self.connection.receive()[1][4:])

    def embed(self, photos: list[bytes], in_flight: int) -> list[np.ndarray]:
        """The vectors in order, with so many photos asked for at once."""
        room, head = threading.Semaphore(in_flight), struct.pack("<IQ", 1, 10**9) + bytes([len(self.name)]) + self.name.encode()

        def send() -> None:
            for photo in photos:
                room.acquire()
                self.connection.send(EMBED_BULK_IMAGE, head + photo)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        vectors = []
        for _ in photos:
            kind, body = self.connection.receive()
            room.release()
            if kind != EMBEDDING:
                raise SystemExit(f"no vector: {body!r}")
            vectors.append(np.frombuffer(body[-4 * vit.DIMENSIONS :], np.float32))
        sender.join()
        return vectors

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def library() -> Path:
    return next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))


def tensors(name: str, graph: Path, provider: str) -> None:
    """The network alone, in ONNX Runtime of Python, as the embedder sets it up."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    chosen = (provider, {
        "device_id": 0, "arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": 0,
    } if provider == "CUDAExecutionProvider" else {})
    session = onnxruntime.InferenceSession(str(graph), options, providers=[chosen])
    if session.get_providers()[0] != provider:
        raise SystemExit(f"ONNX Runtime computes on {session.get_providers()[0]} and not on {provider}. Nothing was measured.")
    for batch in BATCHES:
        shape = (batch, 3, vit.SIDE, vit.SIDE)
        values = np.random.default_rng(2).normal(0, 1, shape).astype(np.float16 if name == "fp16" else np.float32)
        run = lambda: session.run(None, {"pixel_values": values})
        run()
        run()
        start, runs = time.perf_counter(), 0
        while runs == 0 or time.perf_counter() - start < SECONDS:
            run()
            runs += 1
        each = (time.perf_counter() - start) / runs
        print(f"{name}  ready tensors  batch {batch:4}  {batch / each:10.0f} a second  {each * 1000:9.2f} ms a run", flush=True)


def jpegs(embedder: Embedder, name: str, photos: dict[str, list[bytes]]) -> None:
    for size, files in photos.items():
        embedder.embed(files, 64)
        for in_flight in IN_FLIGHT:
            before, start, done = embedder.status(), time.perf_counter(), 0
            while time.perf_counter() - start < SECONDS:
                embedder.embed(files * max(1, in_flight * 2 // len(files)), in_flight)
                done += len(files) * max(1, in_flight * 2 // len(files))
            rate, after = done / (time.perf_counter() - start), embedder.status()
            count = lambda what: after[what] - before[what]
            batch = count("image_inferences") / max(1, count("image_batches"))
            print(f"{name}  JPEGs {size:>7}  {in_flight:4} at once  {rate:10.0f} a second  {batch:6.1f} a run", flush=True)


def main(folder: Path, program: str, rehearses: bool) -> None:
    provider, of_runtime = ("cpu", "CPUExecutionProvider") if rehearses else ("cuda", "CUDAExecutionProvider")
    if not rehearses:
        onnxruntime.preload_dlls()
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        print(subprocess.run(query, capture_output=True, text=True).stdout.strip())
    print(f"ONNX Runtime {onnxruntime.__version__}, {len(os.sched_getaffinity(0))} processors, models of ViT-B/32's size", flush=True)
    demo = sorted(inputs.DEMO_PHOTOS.glob("*.jpg"))
    photos = {}
    for size, (width, height, count) in PHOTOS.items():
        made = [inputs.photo(demo[number], width, height, number) for number in range(count)]
        photos[size] = [jpeg(picture) for picture in made]
    failed = False
    for name, place in vit.make(folder / "models").items():
        tensors(name, place / "vision_model.onnx", of_runtime)
        embedder = Embedder(program, folder / "models", name, provider)
        jpegs(embedder, name, photos)
        files = [photo for group in photos.values() for photo in group]
        found = embedder.embed(files, 64)
        embedder.end()
        of_processor = Embedder(program, folder / "models", name, "cpu")
        expected = of_processor.embed(files, 8)
        of_processor.end()
        least = min(float(a @ b) for a, b in zip(found, expected))
        failed |= least < LEAST_COSINE[name]
        print(f"{name}  least cosine to the processor's vectors {least:.7f}, {LEAST_COSINE[name]} is asked for", flush=True)
    raise SystemExit("Vectors differ from the processor's." if failed else 0)


def jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=inputs.QUALITY)
    return file.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] == ["--rehearse"])
