"""Writes tests/data/images/damage.json: damage to the files of images.py, and the outcomes that are right.

Each entry names a file and the edits to it: at a place some bytes are taken away and other bytes put there, so many times. `refused` are pictures that
are not whole, `harmless` are files whose picture is untouched, and `chance` are edits at random: where libjpeg reads a JPEG without a warning, or
Pillow another file without an error, `seen` has what it shows as means of 8 x 8 fields, and where not, it is null.
"""

import io
import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy
import simplejpeg
from PIL import Image

FIELDS = 8
WITHOUT_LAST_SCAN = "without its last scan"
ZEROED_END = "the last 512 bytes of its scans zeroed"
SCANS = ("jpeg-scans-each.jpg", "jpeg-scans-pair.jpg")
SEQUENTIAL = ("jpeg-baseline-420.jpg", "jpeg-baseline-444.jpg", "jpeg-restarts.jpg", "jpeg-grey.jpg", "jpeg-cmyk.jpg", *SCANS)
PROGRESSIVE = ("jpeg-progressive-420.jpg", "jpeg-grey-progressive.jpg")
OTHERS = (
    *("png-rgb-8.png", "png-palette-4.png", "png-interlaced-rgb-8.png", "png-animated.png", "webp-lossy.webp", "webp-lossless.webp"),
    *("webp-lossy-alpha.webp", "webp-animated.webp", "gif.gif", "gif-interlaced.gif", "gif-animated.gif", "bmp-rgb.bmp", "bmp-rle8.bmp"),
)
HEIFS = (
    *("heic-420.heic", "heic-444.heic", "heic-grey.heic", "heic-10.heic", "heic-grid.heic"),
    *("avif-420.avif", "avif-444.avif", "avif-grey.avif", "avif-grid.avif"),
)
TIFFS = (
    *("tiff-plain.tif", "tiff-big-endian.tif", "tiff-deflate.tif", "tiff-lzw.tif", "tiff-packbits.tif", "tiff-tiles.tif", "tiff-planes.tif"),
    *("tiff-cmyk.tif", "tiff-grey.tif", "tiff-fax.tif"),
)


def write(out: Path, reference) -> None:
    files = {name: (out / name).read_bytes() for name in (*SEQUENTIAL, *PROGRESSIVE, *OTHERS, *HEIFS, *TIFFS)}
    entries = {
        "what": "written by tests/parity/damage.py",
        "refused": [*refused_jpegs(files), *refused_others(files), *refused_heifs(files), *refused_tiffs(files)],
        "harmless": [*harmless_jpegs(files), *harmless_others(files), *harmless_heifs_and_tiffs(files)],
        "chance": list(chance(files, reference)),
    }
    for entry in entries["refused"]:
        # libjpeg does without a scan, and stops at the last block, without a warning.
        if entry["of"] in SEQUENTIAL and entry["shows"] not in (WITHOUT_LAST_SCAN, ZEROED_END):
            assert warning(edited(files, entry)), entry
    for entry in entries["harmless"]:
        image, untouched = (pixels(data) for data in (edited(files, entry), files[entry["of"]]))
        assert numpy.array_equal(image, untouched), entry
    lines = [f' "{name}": {json.dumps(value)}' for name, value in entries.items() if isinstance(value, str)]
    for name, value in entries.items():
        if isinstance(value, list):
            lines.append(f' "{name}": [\n' + ",\n".join("  " + json.dumps(entry) for entry in value) + "\n ]")
    (out / "damage.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(", ".join(f"{len(value)} {name}" for name, value in entries.items() if isinstance(value, list)))


def damage(of: str, shows: str, *edits: tuple) -> dict:
    """Edits are (at, take, put) or (at, take, put, times); in `put` a name stands for the bytes of that file."""
    fields = ({"at": at, "take": take, "put": put.hex() if isinstance(put, bytes) else put, "times": (*times, 1)[0]} for at, take, put, *times in edits)
    return {"of": of, "shows": shows, "edits": list(fields)}


def edited(files: dict[str, bytes], entry: dict) -> bytes:
    data = files[entry["of"]]
    for edit in entry["edits"]:
        put = files.get(edit["put"]) or bytes.fromhex(edit["put"])
        data = data[: edit["at"]] + put * edit["times"] + data[edit["at"] + edit["take"] :]
    return data


def pixels(data: bytes) -> numpy.ndarray:
    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def warning(data: bytes) -> str | None:
    """The warning of libjpeg about a JPEG."""
    try:
        kind = {"L": "GRAY", "CMYK": "CMYK"}.get(Image.open(io.BytesIO(data)).mode, "RGB")
        simplejpeg.decode_jpeg(data, kind, strict=True)
    except (ValueError, OSError, SyntaxError) as error:
        return str(error)
    return None


# ---------------------------------------------------------------------------------------------------------------------------------------
# JPEG


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers outside of scans' data, each with its place."""
    at = 2
    while True:
        marker = data[at + 1]
        yield marker, at
        if marker == 0xD9:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            while data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7:
                at += 1


def find(data: bytes, *markers: int) -> list[int]:
    return [at for marker, at in segments(data) if marker in markers]


def restart_markers(data: bytes) -> list[int]:
    start = find(data, 0xDA)[0]
    return [at for at in range(start, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]


def refused_jpegs(files: dict[str, bytes]) -> Iterator[dict]:
    for name in (*SEQUENTIAL, *PROGRESSIVE):
        data = files[name]
        start, end = find(data, 0xDA)[0] + 14, len(data) - 2
        for percent in (2, 10, 30, 50, 70, 90, 99):
            at = start + (end - start) * percent // 100
            yield damage(name, f"cut at {percent} % of its scans, and closed", (at, end - at, b""))
        at = start + (end - start) // 2
        yield damage(name, "a half, and then a whole one", (at, len(data) - at, name))
        frame = find(data, 0xC0, 0xC2)[0] + 5
        height = int.from_bytes(data[frame : frame + 2], "big")
        for other in (height + 16, height * 2, height - 16):
            yield damage(name, f"a height of {other} for {height}", (frame, 2, struct.pack(">H", other)))
    for name in SEQUENTIAL:
        start, end = find(files[name], 0xDA)[0] + 14, len(files[name]) - 2
        for percent in (20, 50, 80):
            at = start + (end - start) * percent // 100
            yield damage(name, f"512 bytes zeroed at {percent} % of its scans", (at, 512, b"\0", 512))
        yield damage(name, ZEROED_END, (end - 512, 512, b"\0", 512))
    for name in PROGRESSIVE:
        for number, at in enumerate(find(files[name], 0xDA)[1:], 1):
            tables = max((place for place in find(files[name], 0xC4) if place < at), default=at)
            before = max((place for place in find(files[name], 0xDA) if place < at), default=0)
            at = tables if tables > before else at
            yield damage(name, f"only its first {number} scans", (at, len(files[name]) - 2 - at, b""))
    for name in SCANS:
        at = find(files[name], 0xC4)[-1]
        yield damage(name, WITHOUT_LAST_SCAN, (at, len(files[name]) - 2 - at, b""))
    name = "jpeg-restarts.jpg"
    first, second, third = restart_markers(files[name])[:3]
    yield damage(name, "a restart marker is missing", (first, 2, b""))
    yield damage(name, "two restart markers are exchanged", (first, 2, b"\xff\xd1"), (second, 2, b"\xff\xd0"))
    yield damage(name, "what lies between two restart markers is missing", (first, second - first, b""))
    yield damage(name, "what lies between three restart markers is missing", (first, third - first, b""))
    yield damage(name, "a restart marker stands twice", (first, 0, b"\xff\xd0"))


def harmless_jpegs(files: dict[str, bytes]) -> Iterator[dict]:
    thumbnail = files["jpeg-grey.jpg"][:20] + b"\xff\xd9"
    for name in (*SEQUENTIAL, *PROGRESSIVE):
        data = files[name]
        end = len(data) - 2
        yield damage(name, "bytes after its end", (len(data), 0, b"and a tail \xff\xda"))
        yield damage(name, "another picture after its end", (len(data), 0, name))
        yield damage(name, "fill bytes before its end", (end, 0, b"\xff", 9))
        yield damage(name, "fill bytes before its first scan", (find(data, 0xDA)[0], 0, b"\xff", 3))
        yield damage(name, "zeros between its scan and its end", (end, 0, b"\0", 300))
        yield damage(name, "a picture in an application's segment", (2, 0, b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail))
        yield damage(name, "a comment after its scans", (end, 0, b"\xff\xfe\0\x06\xff\xd9\xff\xd8"))
        height = data[find(data, 0xC0, 0xC2)[0] + 5 :][:2]
        after_first = (find(data, 0xC4, 0xDA, 0xD9), find(data, 0xDA)[0])
        at = next(place for place in after_first[0] if place > after_first[1])
        yield damage(name, "its height once more after its first scan (DNL)", (at, 0, b"\xff\xdc\0\x04" + height))
    for name in ("jpeg-restarts.jpg", "jpeg-baseline-420.jpg"):
        count = len(restart_markers(files[name]))
        yield damage(name, "a restart marker behind the last block", (len(files[name]) - 2, 0, bytes([0xFF, 0xD0 + count % 8])))


# ---------------------------------------------------------------------------------------------------------------------------------------
# The other formats


def refused_others(files: dict[str, bytes]) -> Iterator[dict]:
    for name in ("webp-lossy.webp", "webp-lossless.webp", "webp-lossy-alpha.webp", "webp-animated.webp"):
        length = int.from_bytes(files[name][4:8], "little")
        for other in (length + 2, length // 2):
            yield damage(name, f"a length of {other} for {length}", (4, 4, struct.pack("<I", other)))
    whole = {"png-animated.png": 0.4, "webp-animated.webp": 0.4, "gif-animated.gif": 0.4}
    for name in OTHERS:
        data = files[name]
        for percent in (10, 30, 60, 90, 98):
            at = int(len(data) * percent / 100 * whole.get(name, 1))
            yield damage(name, f"cut at {100 * at // len(data)} %", (at, len(data) - at, b""))
    for name in ("bmp-rgb.bmp", "bmp-rle8.bmp"):
        height = int.from_bytes(files[name][22:26], "little")
        for other in (height + 1, height * 2):
            yield damage(name, f"a height of {other} for {height}", (22, 4, struct.pack("<i", other)))
    for name in ("png-rgb-8.png", "png-interlaced-rgb-8.png"):
        checksum = files[name].index(b"IEND") - 8
        yield damage(name, "a wrong checksum within its data", (checksum - 1, 1, bytes([files[name][checksum - 1] ^ 1])))
        height = int.from_bytes(files[name][20:24], "big")
        yield damage(name, "another height, and the checksum of the first", (20, 4, struct.pack(">I", height + 1)))


def harmless_others(files: dict[str, bytes]) -> Iterator[dict]:
    for name in OTHERS:
        yield damage(name, "bytes after its end", (len(files[name]), 0, b"and a tail"))
    for name in ("png-rgb-8.png", "png-interlaced-rgb-8.png"):
        end = len(files[name]) - 12
        yield damage(name, "a wrong checksum of its data", (end - 4, 1, bytes([files[name][end - 4] ^ 1])))
        yield damage(name, "without its last chunk (IEND)", (end, 12, b""))
        yield damage(name, "without the checksum of its data and what follows", (end - 4, 16, b""))
    for name in ("gif.gif", "gif-interlaced.gif"):
        yield damage(name, "without its last byte", (len(files[name]) - 1, 1, b""))


def refused_heifs(files: dict[str, bytes]) -> Iterator[dict]:
    for name in HEIFS:
        data = files[name]
        for percent in (10, 30, 60, 90, 99):
            at = len(data) * percent // 100
            yield damage(name, f"cut at {percent} %", (at, len(data) - at, b""))
        place = data.index(b"ispe") + 12
        height = int.from_bytes(data[place : place + 4], "big")
        yield damage(name, f"a height of {height * 2} for {height}", (place, 4, struct.pack(">I", height * 2)))
        start = data.index(b"mdat") + 4
        yield damage(name, "all of its pictures zeroed", (start, len(data) - start, b"\0", len(data) - start))


def refused_tiffs(files: dict[str, bytes]) -> Iterator[dict]:
    for name in TIFFS:
        data = files[name]
        for percent in (10, 30, 60, 90, 99):
            at = len(data) * percent // 100
            yield damage(name, f"cut at {percent} %", (at, len(data) - at, b""))
        yield damage(name, "a list of tags beyond its end", (4, 4, b"\x7f\x7f\x7f\x7f"))


def harmless_heifs_and_tiffs(files: dict[str, bytes]) -> Iterator[dict]:
    for name in (*HEIFS, *TIFFS):
        yield damage(name, "a box after its end", (len(files[name]), 0, b"\0\0\0\x0cfreetail"))


# ---------------------------------------------------------------------------------------------------------------------------------------
# Chance


def chance(files: dict[str, bytes], reference) -> Iterator[dict]:
    for name in (*SEQUENTIAL, *PROGRESSIVE, *OTHERS, *HEIFS, *TIFFS):
        dice = random.Random(name)
        data = files[name]
        is_jpeg = name.endswith(".jpg")
        for number in range(14 if is_jpeg else 7):
            at = dice.randrange(2 if number % 4 == 0 else len(data) // 20, len(data) - 40)
            kind = dice.randrange(5)
            if kind < 3:
                edit = (at, 1, bytes([data[at] ^ 1 << dice.randrange(8)]))
            elif kind == 3:
                edit = (at, dice.randrange(1, 30), b"")
            else:
                edit = (at, 8, b"\0", 8)
            entry = damage(name, "chance", edit)
            entry["seen"] = seen(edited(files, entry), is_jpeg, reference)
            yield entry


def seen(data: bytes, is_jpeg: bool, reference) -> str | None:
    if is_jpeg and warning(data):
        return None
    try:
        picture = numpy.asarray(reference(data)).astype(float)
    except Exception:  # Any error of Pillow.
        return None
    side = len(picture) // FIELDS
    fields = picture.reshape(FIELDS, side, FIELDS, side, 3).mean(axis=(1, 3))
    return numpy.rint(fields).astype(numpy.uint8).tobytes().hex()
