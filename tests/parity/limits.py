"""Makes tests/data/limits: pictures that are just below the limits of pg_clip, in the formats that no encoder of the tests writes.

The limits are 50,000,000 pixels and 512 MiB for the decoder, as src/embedder/image/memory.rs reckons them. All but a few pixels have one
colour, so that the files are small. That of WebP is packed: of a picture of one colour it repeats the same bytes. The tests are in src/embedder/image/limits.rs.

    python -m venv env && env/bin/pip install -r tests/parity/requirements.txt && env/bin/python tests/parity/limits.py
"""

import gzip
import io
from pathlib import Path

from PIL import Image

import pillow_heif

import encoders
import heif

pillow_heif.register_heif_opener()

FOLDER = Path(__file__).resolve().parents[2] / "tests/data/limits"


def picture(width: int, height: int) -> Image.Image:
    """A picture of one colour with a mark, without which an encoder may leave things out."""
    image = Image.new("RGB", (width, height), (90, 120, 150))
    image.paste((250, 10, 10), (16, 16, 40, 40))
    return image


def save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def files() -> dict[str, bytes]:
    heic = {"quality": 30}
    avif = {"quality": 30, "speed": 10, "max_threads": 1}
    tiles = [save(picture(2048, 2048), kind, **options) for kind, options in (("HEIF", heic), ("AVIF", avif))]
    cut = [(b"clap", encoders.numbers((8188, 1, 6098, 1, 0, 1, 0, 1)))]
    return {
        "lossy.webp.gz": gzip.compress(save(picture(8000, 6250), "WEBP", quality=0, method=2), 9, mtime=0),
        "420.heic": save(picture(7040, 5312), "HEIF", chroma=420, **heic),
        "444.heic": save(picture(5760, 4288), "HEIF", chroma=444, **heic),
        "grid.heic": heif.grid([tiles[0]] * 12, 4, (8190, 6100), cut),
        "420.avif": save(picture(6720, 4192), "AVIF", subsampling="4:2:0", **avif),
        "444.avif": save(picture(6720, 4192), "AVIF", subsampling="4:4:4", advanced={"film-grain-test": "1"}, **avif),
        "grid.avif": heif.grid([tiles[1]] * 12, 4, (8190, 6100), []),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)
        print(f"{name:16} {len(data):8}")


if __name__ == "__main__":
    main()
