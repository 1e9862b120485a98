"""Hostile image files: of cameras whose images are files."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from bombs import deflated_zeros
from lab import MARKER, Lab, Payload, case
from PIL import Image

SCENE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
JPEG = bytes(simplejpeg.encode_jpeg(SCENE))
CSV = "t,a,b,c\n" + "".join(f"{i / 10},{i},{i / 2},{-i}\n" for i in range(30))


def of_pillow(kind: str, image: Any = None, **options: Any) -> bytes:
    """Return an image as a file of Pillow's."""
    file = io.BytesIO()
    (Image.fromarray(SCENE) if image is None else image).save(file, kind, **options)
    return file.getvalue()


def episode(lab: Lab, name: str = "episode_1") -> Path:
    """Write an episode without images."""
    lab.file(f"{name}/robot.csv", CSV)
    return lab.raw / name


def camera(lab: Lab, *images: bytes, ending: str = "jpg", name: str = "episode_1") -> None:
    """Write an episode whose last images are these; those before are good."""
    episode(lab, name)
    for i in range(30):
        data = images[i - 30] if i >= 30 - len(images) else JPEG if ending == "jpg" else of_pillow(ending)
        lab.file(f"{name}/cam/{i:03d}.{ending}", data)


def each(lab: Lab, *images: bytes, ending: str = "jpg") -> None:
    """Write an episode for each of the images."""
    for i, image in enumerate(images):
        camera(lab, image, ending=ending, name=f"episode_{i:02d}")


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int, height: int, data: bytes, *more: bytes, depth: int = 8, colour: int = 2, interlace: int = 0
) -> bytes:
    """Return a PNG."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int, data: bytes = JPEG) -> bytes:
    """Return the picture with another size in its header."""
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def tiff(width: int, height: int, *entries: tuple[int, int, int, int], following: int = 0, tail: bytes = b"") -> bytes:
    """Return a TIFF of one directory; ``entries`` are tag, type, count and value."""
    given = {
        256: (256, 4, 1, width),
        257: (257, 4, 1, height),
        258: (258, 3, 1, 8),
        262: (262, 3, 1, 1),
        277: (277, 3, 1, 1),
    }
    given |= {259: (259, 3, 1, 1), 273: (273, 4, 1, 200), 278: (278, 4, 1, height), 279: (279, 4, 1, max(len(tail), 1))}
    given |= {entry[0]: entry for entry in entries}
    listed = b"".join(struct.pack("<HHII", *given[tag]) for tag in sorted(given))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(given)) + listed + struct.pack("<I", following)).ljust(
        200, b"\0"
    ) + tail


@case("images", "nothing hostile", kept=True)
def _(lab: Lab) -> None:
    camera(lab)


@case("images", "JPEGs cut short at 15 places", "episode_14/cam/029.jpg")
def _(lab: Lab) -> None:
    each(lab, *(JPEG[:at] for at in np.linspace(0, len(JPEG) - 2, 15).astype(int)))


@case("images", "JPEGs with bytes overwritten at 40 places", kept=True)
def _(lab: Lab) -> None:
    def broken(at: int) -> bytes:
        return JPEG[:at] + b"\xff\xff" + JPEG[at + 2 :]

    each(lab, *(broken(at) for at in np.linspace(2, 640, 40).astype(int)))


@case("images", "JPEGs of 65500 x 65500, of nothing, and just below the limit", "episode_00/cam/029.jpg", "megapixels")
def _(lab: Lab) -> None:
    each(lab, jpeg_of_size(65500, 65500), jpeg_of_size(0, 0), jpeg_of_size(65500, 1), jpeg_of_size(9990, 9990))


@case("images", "a progressive JPEG of 9000 x 9000 with 3000 scans", "episode_1/cam/029.jpg", limit_s=30)
def _(lab: Lab) -> None:
    data = of_pillow("JPEG", Image.new("RGB", (9000, 9000)), progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[last:-2]
    camera(lab, data[:-2] + scan * 3000 + b"\xff\xd9")


@case("images", "a JPEG with 20000 restarts, 5000 tables and 20000 comments", kept=True)
def _(lab: Lab) -> None:
    table = JPEG[JPEG.index(b"\xff\xc4") :]
    table = table[: 2 + int.from_bytes(table[2:4], "big")]
    comment = b"\xff\xfe\0\x04xx"
    each(
        lab,
        JPEG[:2] + comment * 20_000 + JPEG[2:],
        JPEG[:2] + table * 5000 + JPEG[2:],
        JPEG[:-2] + b"\xff\xd0" * 20_000 + b"\xff\xd9",
        JPEG[:2] + b"\xff\xe1\xff\xff" + b"Exif\0\0" + bytes(65527) + JPEG[2:],
    )


@case("images", "other codings: arithmetic, 12 bits, CMYK, lossless", "episode_00/cam/029.jpg")
def _(lab: Lab) -> None:
    at = JPEG.index(b"\xff\xc0")

    def process(kind: int) -> bytes:
        return JPEG[: at + 1] + bytes([kind]) + JPEG[at + 2 :]

    deep = JPEG[: at + 4] + b"\x0c" + JPEG[at + 5 :]
    each(lab, process(0xC9), process(0xC3), process(0xC5), deep, of_pillow("JPEG", Image.new("CMYK", (64, 48))))


@case("images", "other files called JPEG: scripts, pages, pickles, other formats", "episode_00/cam/029.jpg")
def _(lab: Lab) -> None:
    svg = f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file://{lab.outside}/secret.txt">]><svg>&x;</svg>'
    eps = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n({lab.executed}) (w) file closefile showpage\n"
    msl = f"<image><read filename='{lab.outside}/secret.txt'/></image>"
    each(
        lab, svg.encode(), eps.encode(), msl.encode(), pickle.dumps(Payload(lab)), b"#!/bin/sh\ntouch " + bytes(lab.executed),  # noqa: E501
        of_pillow("GIF"), of_pillow("TIFF"), of_pillow("BMP"), of_pillow("WEBP"), of_pillow("PPM"), of_pillow("ICNS"),
        b"P6 60000 60000 255\n", b"", MARKER[:1], b"\xff\xd8", b"\xff\xd8\xff\xd9", b"8BPS\0\1" + bytes(20) + b"\0\3" + b"\xff" * 8,  # noqa: E501
    )  # fmt: skip


@case("images", "PNGs of 1e5 x 1e5, of 2**31, of nothing", "episode_00/cam/029.png", "megapixels")
def _(lab: Lab) -> None:
    sizes = [(100_000, 100_000), (0x7FFFFFFF, 0x7FFFFFFF), (0xFFFFFFFF, 1), (0, 0), (1 << 26, 1)]
    each(lab, *(png(*size, zlib.compress(bytes(100))) for size in sizes), ending="png")


@case("images", "a PNG whose data unpacks to 4 GB", kept=True)
def _(lab: Lab) -> None:
    camera(lab, png(64, 48, deflated_zeros(4 << 30, 15)), ending="png")


@case("images", "thirty PNGs of zeros, 10000 x 9990 each", "episode_1/cam/000.png", "bytes of pixels")
def _(lab: Lab) -> None:
    data = png(10_000, 9990, deflated_zeros(30_001 * 9990, 15))
    episode(lab)
    for i in range(30):
        lab.file(f"episode_1/cam/{i:03d}.png", data)


@case("images", "thirty PNGs of zeros, 9000 x 9400 each", kept=True, limit_s=60, slow=True)
def _(lab: Lab) -> None:
    data = png(9000, 9400, deflated_zeros(27_001 * 9400, 15))
    episode(lab)
    for i in range(30):
        lab.file(f"episode_1/cam/{i:03d}.png", data)


@case("images", "PNGs of one channel of 16 bits, 10000 x 9990", kept=True, schema="depth", limit_s=60, slow=True)
def _(lab: Lab) -> None:
    data = png(10_000, 9990, deflated_zeros(20_001 * 9990, 15), depth=16, colour=0)
    episode(lab)
    for i in range(30):
        lab.file(f"episode_1/cam/{i:03d}.png", data)


@case("images", "texts and profiles in a PNG that unpack to 1 GB", kept=True)
def _(lab: Lab) -> None:
    bomb = deflated_zeros(1 << 30, 15)
    data = zlib.compress(bytes(193 * 48))
    each(
        lab,
        png(64, 48, data, chunk(b"zTXt", b"a\0\0" + bomb)),
        png(64, 48, data, chunk(b"iCCP", b"a\0\0" + bomb)),
        png(64, 48, data, chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)),
        png(64, 48, data, *[chunk(b"tEXt", b"a\0b")] * 20_000),
        ending="png",
    )


@case("images", "PNGs that are odd inside", "episode_01/cam/029.png")
def _(lab: Lab) -> None:
    good = of_pillow("PNG")
    data = zlib.compress(bytes(193 * 48))
    each(
        lab,
        png(64, 48, data, interlace=1),
        png(64, 48, data, interlace=7),
        png(64, 48, data, colour=3),
        png(64, 48, data, chunk(b"PLTE", bytes(5)), colour=3),
        png(64, 48, b""),
        png(64, 48, data[:-8]),
        good[:-12],
        good[:20] + b"\0" + good[21:],
        good[:8] + struct.pack(">I", 0x7FFFFFFF) + good[12:],
        png(64, 48, data, chunk(b"acTL", struct.pack(">II", 1 << 31, 0)), chunk(b"fcTL", bytes(26))),
        png(64, 48, data, depth=3),
        ending="png",
    )


@case("images", "PNGs cut short at 12 places", "episode_11/cam/029.png")
def _(lab: Lab) -> None:
    good = of_pillow("PNG")
    each(lab, *(good[:at] for at in np.linspace(8, len(good) - 1, 12).astype(int)), ending="png")


@case("images", "WebP, BMP and TIFF that say 1e5 x 1e5", "episode_00/cam/029.bmp", schema="images convert")
def _(lab: Lab) -> None:
    bmp = bytearray(of_pillow("BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    falling = bytearray(bmp)
    falling[18:26] = struct.pack("<ii", -100_000, -(1 << 31))
    webp = b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(13)
    extended = b"RIFF\x12\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2
    each(
        lab,
        bytes(bmp),
        bytes(falling),
        webp,
        extended,
        tiff(100_000, 100_000),
        tiff(0xFFFFFFFF, 0xFFFFFFFF),
        ending="bmp",
    )


@case("images", "TIFFs that are bombs", "cam/029.tiff", schema="images convert", limit_s=40)
def _(lab: Lab) -> None:
    zeros = deflated_zeros(90_000_000, 15)
    loop = tiff(64, 48, following=8, tail=bytes(3072))
    each(
        lab,
        loop,
        tiff(64, 48, (259, 3, 1, 8), tail=deflated_zeros(1 << 30, 15)),
        tiff(64, 48, (273, 4, 1 << 28, 200), (279, 4, 1 << 28, 200)),
        tiff(64, 48, (258, 3, 1 << 30, 200), (277, 3, 1, 65535)),
        tiff(64, 48, (270, 2, 1 << 31, 200)),
        tiff(64, 48, (322, 4, 1, 1 << 30), (323, 4, 1, 1 << 30), (324, 4, 1, 200), (325, 4, 1, 100)),
        tiff(9500, 9473, (259, 3, 1, 8), (279, 4, 1, len(zeros)), tail=zeros),
        tiff(64, 48, (258, 3, 1, 64), (339, 3, 1, 3), tail=bytes(64 * 48 * 8)),
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + bytes(100),
        ending="tiff",
    )


@case("images", "a TIFF of 65000 directories", "episode_1/cam/029.tiff", schema="images convert", limit_s=40)
def _(lab: Lab) -> None:
    entry = struct.pack("<HHHII", 1, 256, 4, 1, 64)
    pages = b"".join(entry + struct.pack("<I", 8 + 18 * (i + 1)) for i in range(65_000))
    camera(lab, b"II*\0\x08\0\0\0" + pages + entry + bytes(4), ending="tiff")


@case("images", "depth in TIFFs that are bombs", "episode_0/cam/000.tiff", schema="depth convert", limit_s=40)
def _(lab: Lab) -> None:
    zeros = deflated_zeros(4 * 9500 * 9473, 15)
    large = tiff(9500, 9473, (258, 3, 1, 32), (339, 3, 1, 3), (259, 3, 1, 8), (279, 4, 1, len(zeros)), tail=zeros)
    for i, data in enumerate((large, tiff(100_000, 100_000, (258, 3, 1, 16)))):
        episode(lab, f"episode_{i}")
        for k in range(30):
            lab.file(f"episode_{i}/cam/{k:03d}.tiff", data)


@case("images", "an image of 8 GB of holes", "episode_1/cam/029.jpg")
def _(lab: Lab) -> None:
    camera(lab)
    with (lab.raw / "episode_1/cam/029.jpg").open("r+b") as file:
        file.truncate(8 << 30)


@case("images", "images that are pipes, devices, links to themselves", "episode_1", kept=True)
def _(lab: Lab) -> None:
    camera(lab)
    folder = lab.raw / "episode_1/cam"
    os.mkfifo(folder / "030.jpg")
    (folder / "031.jpg").symlink_to("/dev/zero")
    (folder / "032.jpg").symlink_to("032.jpg")
    (folder / "033.jpg").mkdir()


@case("images", "cameras whose names are odd", "'robot'", kept=True, schema="cameras")
def _(lab: Lab) -> None:
    episode(lab)
    for name in (
        "a\nb",
        "\x1b[2J\x1b]0;x\x07",
        "\u202egpj",
        "..x",
        "robot",
        "timestamp",
        "a" * 250,
        "{camera}",
        "%s",
        "$(x)",
        "e\u0301",
    ):
        for i in range(30):
            lab.file(f"episode_1/images/{name}/{i:03d}.jpg", JPEG)


@case("images", "an episode whose name is odd", kept=True, schema="csv")
def _(lab: Lab) -> None:
    for name in (
        "a\nb",
        "\x1b[2J\x1b]0;x\x07",
        "\u202egpj",
        "{parent.__class__}",
        "%s%n",
        "`touch x`",
        "a" * 200,
        "\x7f",
    ):
        episode(lab, f"episode_{name}")
    episode(lab, "episode_0")
    os.mkdir(os.fsencode(lab.raw) + b"/episode_\xff\xfe")  # noqa: PTH102 - no text


@case("images", "numbers in names of a thousand digits", "episode_1", kept=True)
def _(lab: Lab) -> None:
    camera(lab)
    for i in range(3):
        lab.file(f"episode_1/cam/{'9' * 200}{i}.jpg", JPEG)
