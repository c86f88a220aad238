"""Makes tests/data/images: an image file of each kind that pg_clip decodes, and the picture of Pillow and torchvision.

For each file there is a golden PNG of 224 x 224 pixels in 8-bit RGB, the network's input before mean and deviation: Pillow decodes the same
bytes, turns them upright, converts them to RGB, and torchvision resizes and crops. manifest.json says what each file shows, how far
pg_clip may be from the golden picture (in grey levels, 0 to 255), and how far the order of OpenAI's code is from it.

    python -m venv env && env/bin/pip install -r tests/parity/requirements.txt && env/bin/python tests/parity/images.py

The same versions write the same bytes.
"""

import argparse
import collections.abc
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy
import PIL
import torchvision
from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

import pillow_heif

import damage
import encoders
import heif

pillow_heif.register_heif_opener()

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE = 224
TO_MODEL = Compose([Resize(SIDE, interpolation=InterpolationMode.BICUBIC), CenterCrop(SIDE)])
ORIENTATION = 0x0112
SOFTWARE = 0x0131

# How far pg_clip may be from the golden picture: mean and largest difference of a value, in grey levels.
EXACT = (0.02, 2)
"""The same pixels are resized. Weights of 16 bits, where Pillow has 22, turn a rounding here and there."""
HIGH_BYTE = (0.3, 3)
"""Colours of 16 bits: Pillow takes the high byte, pg_clip rounds."""
JPEG = (0.15, 4)
"""Decoders differ in the last bit of the transform, and in how they enlarge chroma."""
CHROMA = (0.5, 4)
"""Decoders differ in the last bit of colours, and Pillow's AVIF has coefficients of 6 bits."""
CUT = (0.7, 4)
"""Pillow's HEIC cuts 10 bits to 8, pg_clip rounds."""
SEAMS = (0.5, 16)
"""Pillow's AVIF interpolates chroma across the seams of tiles, pg_clip within each."""
EQUAL = (0.0, 0)
"""Lossless, and of the model's size already."""


@dataclasses.dataclass
class Case:
    file: str
    shows: str
    data: bytes
    tolerance: tuple[float, int]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=REPOSITORY / "tests/data/images")
    out = arguments.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    (out / "golden").mkdir(parents=True)
    files = []
    for case in [*jpegs(), *pngs(), *webps(), *gifs(), *bmps(), *tiffs(), *heics(), *avifs(), *orientations(), *metadata(), *sizes()]:
        golden = reference(case.data)
        (out / case.file).write_bytes(case.data)
        golden.save(out / golden_file(case), optimize=True)
        files.append(entry(case, golden))
    manifest = {
        "what": "written by tests/parity/images.py; differences are in grey levels, 0 to 255",
        "pillow": PIL.__version__,
        "pillow_heif": pillow_heif.__version__,
        "torchvision": torchvision.__version__.partition("+")[0],
        "files": files,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    damage.write(out, reference)
    size = sum(path.stat().st_size for path in out.rglob("*.*"))
    print(f"{len(files)} files, {size / 1e6:.1f} MB with their golden pictures")


def golden_file(case: Case) -> str:
    return f"golden/{case.file.replace('.', '-')}.png"


def entry(case: Case, golden: Image.Image) -> dict:
    mean, largest = case.tolerance
    difference = numpy.abs(numpy.asarray(golden).astype(int) - numpy.asarray(openai(case.data)))
    return {
        "file": case.file,
        "golden": golden_file(case),
        "shows": case.shows,
        "tolerance": {"mean": mean, "max": largest},
        "openai": {"mean": round(float(difference.mean()), 3), "max": int(difference.max())},
    }


def reference(data: bytes) -> Image.Image:
    """Upright, to RGB, resize, crop: the picture that pg_clip promises."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):
        # 16 bits of grey. Pillow's own conversion to RGB clips at 255, which makes nearly every such image white.
        image = Image.fromarray(((numpy.asarray(image).astype(numpy.uint32) + 128) // 257).astype(numpy.uint8))
    return TO_MODEL(image.convert("RGB"))


def openai(data: bytes) -> Image.Image:
    """Resize, crop, to RGB: `_transform` of clip/clip.py in github.com/openai/CLIP."""
    return TO_MODEL(Image.open(io.BytesIO(data))).convert("RGB")


# ---------------------------------------------------------------------------------------------------------------------------------------
# Pictures


def scene(width: int, height: int) -> Image.Image:
    """A picture that looks different after any mistake: no symmetry, other content in each channel, and details of every size down to
    lines of one pixel, which vanish or glare without antialiasing. Flat elsewhere, so that it compresses."""
    x, y = numpy.meshgrid(numpy.linspace(0, 1, width), numpy.linspace(0, 1, height))
    channels = [40 + 180 * x, 220 - 160 * y, 60 + 120 * (x + y) / 2]
    image = Image.fromarray(numpy.dstack(channels).astype(numpy.uint8))
    draw = ImageDraw.Draw(image)

    def box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
        return [(left * width, top * height), (right * width, bottom * height)]

    draw.ellipse(box(0.22, 0.08, 0.5, 0.45), fill=(235, 40, 30))
    draw.rectangle(box(0.55, 0.12, 0.8, 0.3), fill=(20, 60, 200))
    draw.polygon([(0.3 * width, 0.9 * height), (0.45 * width, 0.55 * height), (0.6 * width, 0.9 * height)], fill=(250, 220, 20))
    draw.ellipse(box(0.65, 0.6, 0.75, 0.95), fill=(255, 255, 255))
    step = max(width, height) / 480
    for line in range(24):
        # Vertical lines of growing distance, and below them horizontal ones.
        at = 0.24 * width + (2 * line + line * line / 12) * step
        draw.line([(at, 0.47 * height), (at, 0.53 * height)], fill=(0, 0, 0), width=max(1, round(step)))
        at = 0.58 * height + (2 * line + line * line / 12) * step
        draw.line([(0.78 * width, at), (0.84 * width, at)], fill=(255, 255, 255), width=max(1, round(step)))
    return image


def strip(width: int, height: int) -> Image.Image:
    """A picture of few pixels a side: no two neighbours are alike."""
    y, x = numpy.mgrid[:height, :width]
    values = [(x * 97 + y * 61 + 40) % 256, (x * 31 + y * 151 + 90) % 256, (x * 7 + y * 203 + 160) % 256]
    return Image.fromarray(numpy.dstack(values).astype(numpy.uint8))


def see_through(image: Image.Image) -> Image.Image:
    """With an alpha channel from transparent, at the left, to opaque."""
    alpha = numpy.tile(numpy.linspace(0, 255, image.width), (image.height, 1)).astype(numpy.uint8)
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


PHOTO = scene(480, 360)
TALL = scene(330, 500)


def save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def samples(image: Image.Image, depth: int) -> numpy.ndarray:
    """The picture's values at another depth. At 16 bits the low byte has content too."""
    values = numpy.asarray(image).astype(numpy.uint32)
    if depth == 16:
        return values * 256 + (values * 7 + 64) % 256
    return values >> (8 - depth)


# ---------------------------------------------------------------------------------------------------------------------------------------
# The files, format by format


def jpegs() -> collections.abc.Iterator[Case]:
    for name, subsampling in (("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0")):
        for kind, progressive in (("baseline", False), ("progressive", True)):
            data = save(PHOTO, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
            yield Case(f"jpeg-{kind}-{name}.jpg", f"{kind}, {subsampling}", data, JPEG)
    restarts = save(PHOTO, "JPEG", quality=90, subsampling="4:2:0", restart_marker_blocks=7)
    yield Case("jpeg-restarts.jpg", "a restart interval of 7 blocks", restarts, JPEG)
    yield Case("jpeg-grey.jpg", "grey", save(PHOTO.convert("L"), "JPEG", quality=90), JPEG)
    yield Case("jpeg-grey-progressive.jpg", "grey, progressive", save(PHOTO.convert("L"), "JPEG", progressive=True), JPEG)
    cmyk = save(encoders.cmyk(PHOTO), "JPEG", quality=90)
    yield Case("jpeg-cmyk.jpg", "CMYK, inverted as Adobe does it", cmyk, JPEG)
    yield Case("jpeg-ycck.jpg", "YCCK, inverted as Adobe does it", encoders.jpeg_ycck(PHOTO, quality=90), JPEG)
    yield Case("jpeg-rgb.jpg", "RGB without a colour transform", save(PHOTO, "JPEG", quality=90, keep_rgb=True), JPEG)
    for name, shows, scans, restarts in (
        ("each", "baseline in three scans", ((0,), (1,), (2,)), 0),
        ("pair", "baseline in two scans, of luma and of chroma, with restart markers", ((0,), (2, 1)), 5),
        ("last", "baseline in two scans, of two components and of one", ((0, 1), (2,)), 0),
    ):
        data = encoders.jpeg_in_scans(PHOTO, scans, restarts=restarts)
        yield Case(f"jpeg-scans-{name}.jpg", shows, data, JPEG)
    for name, shows, data in odd_jpegs():
        yield Case(f"jpeg-{name}.jpg", shows, data, JPEG)
    coarse = save(TALL, "JPEG", quality=30, subsampling="4:2:0", optimize=True)
    yield Case("jpeg-coarse.jpg", "quality 30, odd sizes, upright", coarse, JPEG)


def odd_jpegs() -> collections.abc.Iterator[tuple[str, str, bytes]]:
    usual = save(PHOTO, "JPEG", quality=90)
    yield "extended", "extended sequential (SOF1)", usual.replace(b"\xff\xc0", b"\xff\xc1", 1)
    data = encoders.jpeg_in_scans(PHOTO, ((0,), (1, 2))).replace(b"\xff\xc0", b"\xff\xc1", 1)
    yield "extended-scans", "extended sequential, in two scans", data
    yield "steps-16", "steps of quantization with 16 bits, extended", encoders.jpeg_wide_steps(usual)
    yield "mjpeg", "without Huffman tables, as a frame of Motion JPEG", encoders.jpeg_without(usual, 0xC4)
    yield "jfif-adobe", "JFIF, which counts, and an Adobe segment that says RGB", encoders.jpeg_with(usual, 0xEE, b"Adobe\0\x64\0\0\0\0\0")
    turns = [Image.Exif(), Image.Exif()]
    for exif, orientation in zip(turns, (6, 3)):
        exif[ORIENTATION] = orientation
    data = save(TALL, "JPEG", quality=90, exif=turns[0])
    yield "two-exif", "EXIF orientation 6 and, in a second segment, 3", encoders.jpeg_with(data, 0xE1, turns[1].tobytes())


def pngs() -> collections.abc.Iterator[Case]:
    grey = PHOTO.convert("L")
    for depth in (1, 2, 4, 8, 16):
        data = encoders.png(samples(grey, depth), depth, encoders.GREY)
        yield Case(f"png-grey-{depth}.png", f"grey, {depth} bit", data, EXACT)
    for depth, colours in ((8, EXACT), (16, HIGH_BYTE)):
        data = encoders.png(samples(PHOTO, depth), depth, encoders.RGB)
        yield Case(f"png-rgb-{depth}.png", f"RGB, {depth} bit", data, colours)
    clear = see_through(PHOTO)
    for depth, colours in ((8, EXACT), (16, HIGH_BYTE)):
        grey_alpha = encoders.png(samples(see_through(grey), depth), depth, encoders.GREY_ALPHA)
        yield Case(f"png-grey-alpha-{depth}.png", f"grey with alpha, {depth} bit", grey_alpha, colours)
        rgba = encoders.png(samples(clear, depth), depth, encoders.RGBA)
        yield Case(f"png-rgba-{depth}.png", f"RGB with alpha, {depth} bit", rgba, colours)
    for depth in (1, 2, 4, 8):
        reduced = PHOTO.quantize(2**depth, dither=Image.Dither.NONE)
        palette = (b"PLTE", bytes(reduced.getpalette()[: 3 * 2**depth]))
        data = encoders.png(numpy.asarray(reduced), depth, encoders.PALETTE, chunks=(palette,))
        yield Case(f"png-palette-{depth}.png", f"palette, {depth} bit", data, EXACT)
    alphas = (b"tRNS", bytes(range(0, 256, 3)))
    data = encoders.png(numpy.asarray(reduced), 8, encoders.PALETTE, chunks=(palette, alphas))
    yield Case("png-palette-alpha.png", "palette with alpha (tRNS)", data, EXACT)
    key = (b"tRNS", b"".join(b"\0" + bytes([value]) for value in (235, 40, 30)))
    data = encoders.png(samples(PHOTO, 8), 8, encoders.RGB, chunks=(key,))
    yield Case("png-rgb-key.png", "RGB with a transparent colour (tRNS)", data, EXACT)
    for name, shows, image, depth, colour in (
        ("grey-1", "grey, 1 bit", grey, 1, encoders.GREY),
        ("rgb-8", "RGB, 8 bit", PHOTO, 8, encoders.RGB),
    ):
        data = encoders.png(samples(image, depth), depth, colour, interlaced=True)
        yield Case(f"png-interlaced-{name}.png", f"interlaced (Adam7), {shows}", data, EXACT)
    gamma = (b"gAMA", (100_000).to_bytes(4, "big"))
    data = encoders.png(samples(PHOTO, 8), 8, encoders.RGB, chunks=(gamma,))
    yield Case("png-gamma.png", "a gamma of 1 (gAMA), ignored", data, EXACT)
    animated = save(PHOTO, "PNG", save_all=True, append_images=[ImageOps.invert(PHOTO)])
    yield Case("png-animated.png", "animated (APNG): the first frame", animated, EXACT)


def webps() -> collections.abc.Iterator[Case]:
    clear = see_through(PHOTO)
    yield Case("webp-lossy.webp", "lossy", save(PHOTO, "WEBP", quality=90), EXACT)
    yield Case("webp-lossless.webp", "lossless", save(PHOTO, "WEBP", lossless=True), EXACT)
    lossy = save(clear, "WEBP", quality=90, exact=True)
    yield Case("webp-lossy-alpha.webp", "lossy with alpha", lossy, EXACT)
    lossless = save(clear, "WEBP", lossless=True, exact=True)
    yield Case("webp-lossless-alpha.webp", "lossless with alpha", lossless, EXACT)
    frames = {"save_all": True, "append_images": [ImageOps.invert(PHOTO)], "duration": 100}
    yield Case("webp-animated.webp", "animated, lossy: the first frame", save(PHOTO, "WEBP", quality=90, **frames), EXACT)
    frames = {"save_all": True, "append_images": [see_through(ImageOps.invert(PHOTO))], "duration": 100}
    animated = save(clear, "WEBP", lossless=True, exact=True, **frames)
    yield Case("webp-animated-alpha.webp", "animated, lossless with alpha: the first frame", animated, EXACT)


def gifs() -> collections.abc.Iterator[Case]:
    reduced = PHOTO.quantize(64, dither=Image.Dither.NONE)
    yield Case("gif.gif", "one frame", save(reduced, "GIF"), EXACT)
    yield Case("gif-interlaced.gif", "one frame, interlaced", save(reduced, "GIF", interlace=1), EXACT)
    yield Case("gif-transparent.gif", "a transparent colour", save(reduced, "GIF", transparency=3), EXACT)
    inverted = ImageOps.invert(PHOTO).quantize(64, dither=Image.Dither.NONE)
    # A frame of 120 x 90 pixels at 40 and 20 of the same screen.
    for name, shows, options in (
        ("part", "a frame that covers a part of its canvas", {}),
        ("part-transparent", "a frame that covers a part of its canvas, with a transparent colour", {"transparency": 3}),
    ):
        written = bytearray(save(reduced.crop((0, 0, 120, 90)), "GIF", **options))
        written[6:10] = (480).to_bytes(2, "little") + (360).to_bytes(2, "little")
        frame = written.index(b",\0\0\0\0\x78\0")
        written[frame + 1 : frame + 5] = (40).to_bytes(2, "little") + (20).to_bytes(2, "little")
        yield Case(f"gif-{name}.gif", shows, bytes(written), EXACT)
    written = save(PHOTO.convert("L"), "GIF")
    without = bytes([written[10] & 0x7F]) + written[11:13] + written[13 + 3 * 2 ** ((written[10] & 7) + 1) :]
    yield Case("gif-no-palette.gif", "without a palette: grey", written[:10] + without, EXACT)
    animated = save(reduced, "GIF", save_all=True, append_images=[inverted], duration=100)
    yield Case("gif-animated.gif", "animated: the first frame", animated, EXACT)


def bmps() -> collections.abc.Iterator[Case]:
    reduced = PHOTO.quantize(256, dither=Image.Dither.NONE)
    yield Case("bmp-rgb.bmp", "24 bit", save(scene(320, 240), "BMP"), EXACT)
    yield Case("bmp-rgba.bmp", "32 bit with alpha", save(see_through(scene(240, 240)), "BMP"), EXACT)
    yield Case("bmp-palette.bmp", "palette, 8 bit", save(reduced, "BMP"), EXACT)
    small = scene(160, 120).quantize(256, dither=Image.Dither.NONE)
    for name, shows, place in (("palette", "its palette", 54), ("nowhere", "nowhere", 0)):
        data = save(small, "BMP")
        data = data[:10] + place.to_bytes(4, "little") + data[14:]
        yield Case(f"bmp-pixels-{name}.bmp", f"palette, 8 bit; its header says that the pixels are {shows}", data, EXACT)
    yield Case("bmp-bilevel.bmp", "palette, 1 bit", save(PHOTO.convert("1"), "BMP"), EXACT)
    palette = numpy.array(reduced.getpalette(), numpy.uint8).reshape(-1, 3)
    palette = numpy.vstack([palette, numpy.zeros((256 - len(palette), 3), numpy.uint8)])
    yield Case("bmp-rle8.bmp", "palette, run lengths", encoders.bmp_rle8(numpy.asarray(reduced), palette), EXACT)


def tiffs() -> collections.abc.Iterator[Case]:
    small = scene(240, 180)
    for name, shows, options in (
        ("plain", "not packed", {}),
        ("lzw", "packed with LZW", {"compression": "tiff_lzw"}),
        ("deflate", "packed with deflate", {"compression": "tiff_adobe_deflate"}),
        ("packbits", "packed as PackBits", {"compression": "packbits"}),
    ):
        written = [save(small, "TIFF", **options) for _ in range(6)]
        # Behind data of an odd length libtiff writes a byte that it never set.
        data = bytes(values[0] if len(set(values)) == 1 else 0 for values in zip(*written))
        yield Case(f"tiff-{name}.tif", f"RGB, {shows}", data, EXACT)
    packed = {"compression": "tiff_adobe_deflate"}
    grey = PHOTO.convert("L")
    yield Case("tiff-grey.tif", "grey", save(grey, "TIFF", **packed), EXACT)
    white = save(grey.convert("1"), "TIFF", compression="group4")
    yield Case("tiff-fax.tif", "two levels, packed as a fax of group 4", white, EXACT)
    deep = Image.fromarray(samples(grey, 16).astype(numpy.uint16))
    yield Case("tiff-grey-16.tif", "grey, 16 bit", save(deep, "TIFF", **packed), EXACT)
    yield Case("tiff-rgba.tif", "RGB with alpha", save(see_through(small), "TIFF", **packed), EXACT)
    yield Case("tiff-cmyk.tif", "CMYK", save(encoders.cmyk(small), "TIFF", **packed), CHROMA)
    inverted = ImageOps.invert(small)
    yield Case("tiff-pages.tif", "two pages: the first one", save(small, "TIFF", save_all=True, append_images=[inverted], **packed), EXACT)
    yield Case("tiff-6.tif", "orientation 6", save(scene(165, 250), "TIFF", tiffinfo={ORIENTATION: 6}, **packed), EXACT)
    for name, shows, options in (
        ("tiles", "in tiles, deflate", {}),
        ("planes", "in planes", {"planes": True}),
        ("big-endian", "in tiles, 16 bit, the high byte first", {"depth": 16, "order": ">"}),
    ):
        tolerance = HIGH_BYTE if options.get("depth") else EXACT
        yield Case(f"tiff-{name}.tif", f"RGB, {shows}", encoders.tiff(samples(small, options.get("depth", 8)), **options), tolerance)
    premultiplied = see_through(small).convert("RGBa")
    data = encoders.tiff(numpy.asarray(premultiplied), extra=1)
    yield Case("tiff-premultiplied.tif", "RGB multiplied by its alpha", data, EXACT)


def heics() -> collections.abc.Iterator[Case]:
    for name, shows, image, options in (
        ("420", "4:2:0", PHOTO, {"chroma": 420}),
        ("422", "4:2:2", PHOTO, {"chroma": 422}),
        ("444", "4:4:4", PHOTO, {"chroma": 444}),
        ("lossless", "without loss: RGB in 4:4:4", PHOTO, {"quality": -1, "chroma": 444}),
        ("grey", "grey", PHOTO.convert("L"), {}),
        ("alpha", "with alpha", see_through(PHOTO), {}),
        ("odd", "odd sizes", scene(333, 251), {}),
        ("large", "2016 x 1512, 4:4:4", scene(2016, 1512), {"quality": 50, "chroma": 444}),
    ):
        yield Case(f"heic-{name}.heic", shows, save(image, "HEIF", **{"quality": 80} | options), CHROMA)
    deep = pillow_heif.from_bytes("RGB;16", PHOTO.size, samples(PHOTO, 16).astype("<u2").tobytes())
    buffer = io.BytesIO()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    deep.save(buffer, quality=80)
    yield Case("heic-10.heic", "10 bit", buffer.getvalue(), CUT)
    yield from grids("HEIF", "heic", CHROMA, quality=80)


def avifs() -> collections.abc.Iterator[Case]:
    for name, shows, image, options in (
        ("420", "4:2:0", PHOTO, {"subsampling": "4:2:0"}),
        ("422", "4:2:2", PHOTO, {"subsampling": "4:2:2"}),
        ("444", "4:4:4", PHOTO, {"subsampling": "4:4:4"}),
        ("limited", "4:2:0, with values from 16 to 235", PHOTO, {"range": "limited"}),
        ("grey", "grey", PHOTO, {"subsampling": "4:0:0"}),
        ("alpha", "with alpha", see_through(PHOTO), {}),
        ("odd", "odd sizes", scene(333, 251), {}),
        ("large", "2016 x 1512, 4:4:4", scene(2016, 1512), {"quality": 50, "subsampling": "4:4:4", "speed": 9}),
    ):
        yield Case(f"avif-{name}.avif", shows, save(image, "AVIF", **{"quality": 80, "max_threads": 1} | options), CHROMA)
    yield from grids("AVIF", "avif", SEAMS, quality=80, max_threads=1)


def grids(kind: str, name: str, tolerance: tuple[float, int], **options) -> collections.abc.Iterator[Case]:
    """Pictures of tiles, which phones write, in all the ways to turn and cut one."""
    tiles = [save(PHOTO.crop((x, y, x + 192, y + 128)), kind, **options) for y in (0, 128, 256) for x in (0, 192, 384)]
    for suffix, shows, transforms in (
        ("", "", []),
        ("-left", ", turned left", [(b"irot", b"\1")]),
        ("-right", ", turned right", [(b"irot", b"\3")]),
        ("-mirrored", ", top and bottom exchanged", [(b"imir", b"\0")]),
        ("-turned-mirrored", ", turned left and then left and right exchanged", [(b"irot", b"\1"), (b"imir", b"\1")]),
        ("-cut", ", cut to 300 x 200 in its middle", [(b"clap", (300, 1, 200, 1, 0, 1, 0, 1))]),
    ):
        if suffix == "-cut" and kind == "AVIF":
            # Pillow leaves an AVIF whole, which browsers cut.
            continue
        transforms = [(box, content if isinstance(content, bytes) else encoders.numbers(content)) for box, content in transforms]
        data = heif.grid(tiles, 3, PHOTO.size, transforms)
        yield Case(f"{name}-grid{suffix}.{name}", f"nine tiles of 192 x 128{shows}", data, tolerance)


def orientations() -> collections.abc.Iterator[Case]:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = save(TALL, "JPEG", quality=90, exif=exif)
        yield Case(f"exif-{orientation}.jpg", f"EXIF orientation {orientation}", data, JPEG)
        if orientation == 6:
            data = save(TALL, "PNG", exif=exif)
            yield Case("exif-6.png", "EXIF orientation 6 in PNG's eXIf", data, EXACT)
            data = save(TALL, "WEBP", lossless=True, exif=exif)
            yield Case("exif-6.webp", "EXIF orientation 6 in WebP's EXIF", data, EXACT)


def metadata() -> collections.abc.Iterator[Case]:
    """Orientations that stand elsewhere than in the usual place."""

    def packet(orientation: str) -> bytes:
        return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description {orientation}</rdf:Description></x:xmpmeta>".encode()

    attribute, element = packet('tiff:Orientation="6">'), packet("><tiff:Orientation>8</tiff:Orientation>")
    turned, unturned = Image.Exif(), Image.Exif()
    turned[ORIENTATION] = 3
    unturned[SOFTWARE] = "a camera"
    for name, shows, options in (
        ("6", "orientation 6 in XMP, as an attribute", {"xmp": attribute}),
        ("8", "orientation 8 in XMP, as an element", {"xmp": element}),
        ("exif", "orientation 6 in XMP, and 3 in EXIF, which counts", {"xmp": attribute, "exif": turned}),
        ("and-exif", "orientation 6 in XMP, and none in EXIF", {"xmp": attribute, "exif": unturned}),
    ):
        yield Case(f"xmp-{name}.jpg", shows, save(TALL, "JPEG", quality=90, **options), JPEG)
    for name, shows, packed in (("6", "a text", False), ("packed", "a packed text", True)):
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", attribute.decode(), zip=packed)
        yield Case(f"xmp-{name}.png", f"orientation 6 in XMP, {shows} (iTXt)", save(TALL, "PNG", pnginfo=texts), EXACT)
    directory = turned.tobytes()
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(directory):8}\n{directory.hex()}\n", zip=True)
    yield Case("exif-profile.png", "EXIF orientation 3 as ImageMagick's text (zTXt)", save(TALL, "PNG", pnginfo=texts), EXACT)
    data = save(TALL, "PNG")
    behind = data[:-12] + encoders.png_chunk(b"eXIf", directory[6:]) + data[-12:]
    yield Case("exif-behind.png", "EXIF orientation 3 in an eXIf behind the picture", behind, EXACT)
    yield Case("xmp-6.webp", "orientation 6 in XMP", save(TALL, "WEBP", lossless=True, xmp=attribute), EXACT)
    # Pillow leaves out one of the prefixes.
    data = save(TALL, "WEBP", lossless=True, exif=b"Exif\0\0" + directory)
    yield Case("exif-prefix.webp", "EXIF orientation 3 behind the prefix that JPEG has", data, EXACT)


def sizes() -> collections.abc.Iterator[Case]:
    for width, height, tolerance in (
        (1, 1, EQUAL),
        (224, 224, EQUAL),
        (225, 224, EQUAL),
        (224, 225, EQUAL),
        (227, 224, EQUAL),
        (224, 227, EQUAL),
        (1, 4000, EXACT),
        (4000, 1, EXACT),
        (3, 2, EXACT),
        (150, 110, EXACT),
        (1000, 225, EXACT),
    ):
        image = strip(width, height) if min(width, height) < 100 else scene(width, height)
        yield Case(f"size-{width}x{height}.png", f"{width} x {height}", save(image, "PNG", optimize=True), tolerance)
    photo = save(scene(4032, 3024), "JPEG", quality=75, subsampling="4:2:0", optimize=True)
    yield Case("size-4032x3024.jpg", "4032 x 3024 (12 megapixels), 4:2:0", photo, JPEG)


if __name__ == "__main__":
    main()
