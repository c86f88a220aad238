"""Puts coded pictures together in a container of HEIF, as phones do it: tiles of a grid, turned and cut."""

import struct
from collections.abc import Iterator

GRID, TILES = 1, 2
"""The numbers of items: of the grid, and of its first tile."""


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes in `data`: names and contents."""
    at = 0
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        length = length or len(data) - at
        yield name, data[at + 8 : at + length]
        at += length


def box(name: bytes, *content: bytes) -> bytes:
    whole = b"".join(content)
    return struct.pack(">I4s", len(whole) + 8, name) + whole


def full_box(name: bytes, version: int, *content: bytes) -> bytes:
    return box(name, struct.pack(">I", version << 24), *content)


def parts(file: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The properties of a file of one picture and nothing else, and the coded picture."""
    outer = dict(boxes(file))
    meta = dict(boxes(outer[b"meta"][4:]))
    return list(boxes(dict(boxes(meta[b"iprp"]))[b"ipco"])), outer[b"mdat"]


def grid(files: list[bytes], columns: int, size: tuple[int, int], transforms: list[tuple[bytes, bytes]]) -> bytes:
    """One picture of `size` whose tiles are the pictures of `files`, all coded alike, row by row. `transforms` are properties of the whole,
    with their names."""
    properties, _ = parts(files[0])
    coded = [parts(file)[1] for file in files]
    item, brand = (b"av01", b"avif") if any(name == b"av1C" for name, _ in properties) else (b"hvc1", b"heic")
    shared = [(name, content) for name, content in properties if name in (b"hvcC", b"av1C", b"ispe", b"colr", b"pixi")]
    own = [(b"ispe", struct.pack(">III", 0, *size)), *transforms]
    layout = struct.pack(">BBBBHH", 0, 0, len(files) // columns - 1, columns - 1, *size)

    def info(number: int, kind: bytes) -> bytes:
        return full_box(b"infe", 2, struct.pack(">HH4s", number, 0, kind), b"\0")

    def associations(number: int, first: int, names: list[bytes]) -> bytes:
        essential = (name in (b"hvcC", b"av1C", b"irot", b"imir", b"clap") for name in names)
        return struct.pack(">HB", number, len(names)) + bytes(place | flag << 7 for place, flag in enumerate(essential, first))

    tiles = range(TILES, TILES + len(files))
    infos = b"".join(info(number, item) for number in tiles)
    names = [[name for name, _ in properties] for properties in (shared, own)]
    associated = associations(GRID, len(shared) + 1, names[1]) + b"".join(associations(number, 1, names[0]) for number in tiles)

    def meta(start: int) -> bytes:
        places, at = b"", start
        for number, data in [(GRID, layout), *zip(tiles, coded)]:
            places += struct.pack(">HHHII", number, 0, 1, at, len(data))
            at += len(data)
        return full_box(
            b"meta",
            0,
            full_box(b"hdlr", 0, struct.pack(">I4s12xx", 0, b"pict")),
            full_box(b"pitm", 0, struct.pack(">H", GRID)),
            full_box(b"iinf", 0, struct.pack(">H", len(files) + 1), info(GRID, b"grid"), infos),
            full_box(b"iref", 0, box(b"dimg", struct.pack(">HH", GRID, len(files)), b"".join(struct.pack(">H", number) for number in tiles))),
            box(
                b"iprp",
                box(b"ipco", *(box(name, content) for name, content in [*shared, *own])),
                full_box(b"ipma", 0, struct.pack(">I", len(files) + 1), associated),
            ),
            full_box(b"iloc", 0, b"\x44\0", struct.pack(">H", len(files) + 1), places),
        )

    head = box(b"ftyp", brand, b"\0\0\0\0", b"mif1", brand, b"miaf")
    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", layout, *coded)
