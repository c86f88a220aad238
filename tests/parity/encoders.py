"""The encoders that Pillow lacks: PNG of every depth, colour type and interlacing, BMP with run lengths, JPEG as CMYK and YCCK,
and baseline JPEG in several scans."""

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


def tiff(samples: numpy.ndarray, depth: int = 8, planes: bool = False, order: str = "<", extra: int | None = None) -> bytes:
    """A TIFF of tiles of 64 x 64 pixels, or of one strip a plane, packed with deflate. `samples` are height x width x channels."""
    height, width, channels = samples.shape
    samples = samples.astype(f"{order}u{depth // 8}")
    if planes:
        chunks = [samples[:, :, channel].tobytes() for channel in range(channels)]
        layout = [(284, 3, (2,)), (278, 3, (height,))]
    else:
        padded = numpy.pad(samples, ((0, -height % 64), (0, -width % 64), (0, 0)))
        chunks = [padded[y : y + 64, x : x + 64].tobytes() for y in range(0, height, 64) for x in range(0, width, 64)]
        layout = [(322, 3, (64,)), (323, 3, (64,))]
    chunks = [zlib.compress(chunk, 9) for chunk in chunks]
    places = [8 + sum(map(len, chunks[:number])) for number in range(len(chunks))]
    offsets, lengths = (273, 279) if planes else (324, 325)
    entries = [(256, 3, (width,)), (257, 3, (height,)), (258, 3, (depth,) * channels), (259, 3, (8,)), (262, 3, (2,)), (277, 3, (channels,))]
    entries += [*layout, (offsets, 4, tuple(places)), (lengths, 4, tuple(map(len, chunks)))]
    if extra is not None:
        entries.append((338, 3, (extra,)))
    start = 8 + sum(map(len, chunks))
    directory, values = struct.pack(order + "H", len(entries)), b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag, kind, content in sorted(entries):
        packed = struct.pack(f"{order}{len(content)}{'H' if kind == 3 else 'I'}", *content)
        if len(packed) > 4:
            place = struct.pack(order + "I", behind + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, kind, len(content)) + place
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", start) + b"".join(chunks) + directory + b"\0" * 4 + values


def numbers(values: tuple[int, ...]) -> bytes:
    """Numbers of 32 bits as boxes have them."""
    return b"".join(struct.pack(">i", value) for value in values)


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


# The order of the coefficients of a block, as (row, column).
ZIGZAG = sorted(numpy.ndindex(8, 8), key=lambda place: (sum(place), place[1 - sum(place) % 2]))
# Coarser for higher frequencies, and another table for chroma.
STEPS = [numpy.fromfunction(lambda y, x: first + slope * (x + y), (8, 8)).astype(int) for first, slope in ((4, 1), (5, 2))]


def jpeg_in_scans(image: Image.Image, scans: tuple, factors: tuple = ((2, 2), (1, 1), (1, 1)), restarts: int = 0) -> bytes:
    """A baseline JPEG whose scans have the components that `scans` says, as in ((0,), (1, 2)), with `factors` across and down. A scan brings
    Huffman tables of its own, under the numbers that the scan before it used."""
    widest, highest = (max(factor[side] for factor in factors) for side in (0, 1))
    units = -(-image.width // (8 * widest)), -(-image.height // (8 * highest))
    components = []
    for plane, (across, down) in zip(image.convert("YCbCr").split(), factors):
        size = -(-image.width * across // widest), -(-image.height * down // highest)
        samples = numpy.asarray(plane.resize(size, Image.Resampling.BOX)).astype(float)
        padding = (0, units[1] * down * 8 - size[1]), (0, units[0] * across * 8 - size[0])
        blocks = numpy.pad(samples, padding, mode="edge").reshape(units[1] * down, 8, units[0] * across, 8).swapaxes(1, 2)
        own = -(-size[0] // 8), -(-size[1] // 8)
        components.append((quantized(blocks, STEPS[len(components) > 0]), own))
    tables = [bytes([number]) + bytes(int(steps[place]) for place in ZIGZAG) for number, steps in enumerate(STEPS)]
    frame = struct.pack(">BHHB", 8, image.height, image.width, len(factors))
    for number, (across, down) in enumerate(factors):
        frame += bytes([number + 1, across << 4 | down, number > 0])
    written = b"\xff\xd8" + b"".join(segment(0xDB, table) for table in tables) + segment(0xC0, frame)
    if restarts:
        written += segment(0xDD, struct.pack(">H", restarts))
    for scan in scans:
        if len(scan) == 1:
            blocks, (across, down) = components[scan[0]]
            order = [[(0, blocks[y, x])] for y in range(down) for x in range(across)]
        else:
            order = [
                [
                    (place, components[number][0][y * factors[number][1] + v, x * factors[number][0] + h])
                    for place, number in enumerate(scan)
                    for v in range(factors[number][1])
                    for h in range(factors[number][0])
                ]
                for y in range(units[1])
                for x in range(units[0])
            ]
        written += scan_of(scan, order, restarts)
    return written + b"\xff\xd9"


def quantized(blocks: numpy.ndarray, steps: numpy.ndarray) -> numpy.ndarray:
    """The coefficients of blocks of samples, in the order of a file."""
    frequency, sample = numpy.mgrid[:8, :8]
    transform = numpy.cos((2 * sample + 1) * frequency * numpy.pi / 16) / 2
    transform[0] /= numpy.sqrt(2)
    coefficients = numpy.rint(transform @ (blocks - 128) @ transform.T / steps).astype(int)
    return numpy.stack([coefficients[..., y, x] for y, x in ZIGZAG], axis=-1)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_segments(data: bytes) -> list[tuple[int, bytes]]:
    """The segments before the first scan, with their markers and whole, and the rest as one of marker 0xda."""
    segments, at = [], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at + 1], data[at:end]))
        at = end
    return [*segments, (0xDA, data[at:])]


def jpeg_without(data: bytes, marker: int) -> bytes:
    """A JPEG without the segments of this marker."""
    return data[:2] + b"".join(content for found, content in jpeg_segments(data) if found != marker)


def jpeg_with(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with one more segment, in front of its tables."""
    written, added = data[:2], False
    for found, whole in jpeg_segments(data):
        if not added and not 0xE0 <= found <= 0xEF:
            written, added = written + segment(marker, content), True
        written += whole
    return written


def jpeg_wide_steps(data: bytes) -> bytes:
    """A baseline JPEG as an extended one whose quantization tables have two bytes a step."""
    written = data[:2]
    for found, whole in jpeg_segments(data):
        if found == 0xDB:
            tables, content = whole[4:], b""
            for start in range(0, len(tables), 65):
                steps = tables[start + 1 : start + 65]
                content += bytes([0x10 | tables[start]]) + b"".join(bytes([0, step]) for step in steps)
            whole = segment(0xDB, content)
        written += b"\xff\xc1" + whole[2:] if found == 0xC0 else whole
    return written


def scan_of(numbers: tuple, units: list, restarts: int) -> bytes:
    """A scan of units of (component, block), with codes of 4 bits for the means and of 8 for the rest."""
    symbols = [0x00, 0xF0, *(zeros << 4 | size for zeros in range(16) for size in range(1, 11))]
    symbols = symbols[numbers[0] :] + symbols[: numbers[0]]
    places = {symbol: place for place, symbol in enumerate(symbols)}
    tables = bytes([0x00, 0, 0, 0, 12, *[0] * 12, *range(12), 0x10, *[0] * 7, len(symbols), *[0] * 8, *symbols])
    header = bytes([len(numbers)]) + b"".join(bytes([number + 1, 0]) for number in numbers) + b"\0\x3f\0"
    written = segment(0xC4, tables) + segment(0xDA, header)
    bits, means = "", [0] * len(numbers)

    def number(value: int) -> str:
        size = abs(value).bit_length()
        return f"{value + (value < 0) * (2**size - 1):0{size}b}" if size else ""

    for count, unit in enumerate(units):
        if restarts and count and count % restarts == 0:
            written += packed(bits) + bytes([0xFF, 0xD0 + (count // restarts - 1) % 8])
            bits, means = "", [0] * len(numbers)
        for place, block in unit:
            difference = int(block[0]) - means[place]
            means[place] = int(block[0])
            bits += f"{abs(difference).bit_length():04b}" + number(difference)
            last = 0
            for at in numpy.flatnonzero(block[1:]) + 1:
                zeros, value = int(at) - last - 1, int(block[at])
                bits += f"{places[0xF0]:08b}" * (zeros // 16)
                bits += f"{places[zeros % 16 << 4 | abs(value).bit_length()]:08b}" + number(value)
                last = int(at)
            if last < 63:
                bits += f"{places[0x00]:08b}"
        if len(bits) > 4096 and len(bits) % 8 == 0:
            written, bits = written + packed(bits), ""
    return written + packed(bits)


def packed(bits: str) -> bytes:
    """Whole bytes, filled up with ones, and 0x00 after each 0xff."""
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
