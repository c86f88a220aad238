"""The encoders that Pillow lacks: PNG of every depth, colour type and interlacing, BMP with run lengths, JPEG as CMYK and YCCK."""

import io
import struct
import zlib

import numpy
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6

# The seven passes of Adam7: first column, first row, step of columns, step of rows.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples: numpy.ndarray, depth: int, colour: int, interlaced: bool = False, chunks: tuple = ()) -> bytes:
    """A PNG of `samples`, height x width x channels, each below 2**depth. `chunks` (name, data) come before the pixels."""
    samples = numpy.atleast_3d(samples)
    height, width, _ = samples.shape
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(png_rows(samples[top::down, left::right], depth) for left, top, right, down in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, data) for name, data in body)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_rows(samples: numpy.ndarray, depth: int) -> bytes:
    """The rows of one pass, each by the filter "up" but for the first, which has nothing above it."""
    height, width, channels = samples.shape
    if height == 0 or width == 0:
        return b""
    if depth == 16:
        packed = samples.reshape(height, -1).astype(">u2").view(numpy.uint8)
    elif depth == 8:
        packed = samples.reshape(height, -1).astype(numpy.uint8)
    else:
        bits = samples.reshape(height, -1, 1).astype(numpy.uint8) >> numpy.arange(depth - 1, -1, -1, dtype=numpy.uint8) & 1
        packed = numpy.packbits(bits.reshape(height, -1), axis=1)
    above = numpy.vstack([numpy.zeros_like(packed[:1]), packed[:-1]])
    kind = numpy.full((height, 1), 2, numpy.uint8)
    return numpy.hstack([kind, packed - above]).tobytes()


def bmp_rle8(indices: numpy.ndarray, palette: numpy.ndarray) -> bytes:
    """A BMP of run lengths (BI_RLE8); `palette` is 256 x 3."""
    height, width = indices.shape
    runs = bytearray()
    for row in indices[::-1]:
        edges = numpy.flatnonzero(numpy.diff(row)) + 1
        for start, end in zip([0, *edges], [*edges, width]):
            for at in range(start, end, 255):
                runs += bytes([min(255, end - at), row[at]])
        runs += b"\0\0"
    runs += b"\0\1"
    colours = numpy.hstack([palette[:, ::-1], numpy.zeros((256, 1))]).astype(numpy.uint8).tobytes()
    offset = 14 + 40 + len(colours)
    header = struct.pack("<2sIHHI", b"BM", offset + len(runs), 0, 0, offset)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 2835, 2835, 256, 0)
    return header + info + colours + bytes(runs)


def cmyk(image: Image.Image) -> Image.Image:
    """A separation with black generation, so that all four channels say something."""
    colours = 255 - numpy.asarray(image).astype(numpy.int32)
    black = colours.min(axis=2, keepdims=True) // 2
    return Image.fromarray(numpy.concatenate([colours - black, black], axis=2).astype(numpy.uint8), "CMYK")


def jpeg_ycck(image: Image.Image, **options) -> bytes:
    """YCCK as Adobe writes it: the ink of CMY as YCbCr, the inverted K, and 2 as the transform of the Adobe segment."""
    channels = numpy.asarray(cmyk(image))
    # Adobe stores 255 less the ink, which is what the transform is applied to; Pillow inverts what it writes once more.
    ink = Image.fromarray(channels[:, :, :3], "RGB").convert("YCbCr")
    planes = numpy.dstack([255 - numpy.asarray(ink), channels[:, :, 3]])
    buffer = io.BytesIO()
    Image.fromarray(planes, "CMYK").save(buffer, "JPEG", **options)
    written = buffer.getvalue()
    transform = written.index(b"Adobe") + 11
    return written[:transform] + b"\2" + written[transform + 1 :]
