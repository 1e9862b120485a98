"""Finds images whose data is damaged although the file has a header and an end.

Only a decoder sees all damage. Decoding each JPEG, even at 1/8 of its size, takes three times as long as all the rest
of an ingest of images (docs/raw-data.md has the figures), so by default only suspects are decoded: the images that
are small among their neighbours, as after a lost packet, images whose data holds bytes that no encoder writes, and
those whose header is unlike the header of every image that was decoded before.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.read.images.jpeg import WITHOUT_LENGTH, JpegHeader, read_jpeg_header
from vlapipe.pipeline.shards.format.png_decode import decode_png_depth, decode_png_rgb

__all__ = ["decode_fault", "has_odd_bytes", "is_small", "png_fault", "small_among_neighbours"]

_SHARE = 4  # of a camera's images, one in so many is decoded: those that are smallest among their neighbours
_SMALL = 0.9  # and every image smaller than this share of its neighbours' median
_NEIGHBOURS = 4  # on each side
_ZEROS = bytes(32)  # compressed data has no such run; a hole in a file is filled with zeros
_NO_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd9\xff]")  # in the data of a baseline JPEG
_RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
_DRI = b"\xff\xdd\x00\x04"
_START_OF_SCAN = b"\xff\xda"
_EOI = b"\xff\xd9"
_STRAYS_AT_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def _share_of_usual(num_bytes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns each file's size as a share of the median of its neighbours, in the order of their times."""
    padded = np.pad(num_bytes, _NEIGHBOURS, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1), axis=1)
    share: NDArray[np.float64] = num_bytes / np.maximum(usual, 1)
    return share


def small_among_neighbours(num_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which JPEGs of a camera are suspects by their file sizes, given in the order of their times."""
    count = len(num_bytes)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    share = _share_of_usual(num_bytes)
    suspects: NDArray[np.bool_] = share < _SMALL
    suspects[np.argsort(share, kind="stable")[: -(-count // _SHARE)]] = True
    return suspects


def is_small(num_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which PNGs are suspects: those that are small. Their checksums tell all other damage."""
    if not len(num_bytes):
        return np.zeros(0, dtype=np.bool_)
    small: NDArray[np.bool_] = _share_of_usual(num_bytes) < _SMALL
    return small


def has_odd_bytes(jpeg: memoryview, *, is_progressive: bool) -> bool:
    """Returns whether a JPEG's data holds a run of zeros, a marker where none can be, or restarts out of order."""
    data = bytes(jpeg)
    if data.find(_ZEROS) >= 0:
        return True
    scan = data.find(_START_OF_SCAN)
    if is_progressive:
        return False
    if _NO_MARKER.search(data, scan + len(_START_OF_SCAN)) is not None:
        return True
    if data.find(_DRI, 0, scan) < 0:
        return False
    restarts = [marker[1] & 7 for marker in _RESTARTS.findall(data, scan)]
    return restarts != [i & 7 for i in range(len(restarts))]


def decode_fault(jpeg: Any) -> str | None:
    """Decodes one JPEG at the smallest scale. Returns the decoder's complaint, or ``None`` if the image is whole.

    An image with stray bytes between its segments or before its end is whole if it is so without these bytes: then
    every viewer shows all of it, and training decodes it.
    """
    complaint = _complaint(jpeg)
    return None if complaint is None or _is_whole_in_fact(bytes(jpeg), complaint) else complaint


def _complaint(jpeg: Any) -> str | None:
    try:
        simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    except KeyError:  # libjpeg-turbo knows subsamplings that simplejpeg has no name for
        return "Could not determine subsampling"
    return None


def _is_whole_in_fact(jpeg: bytes, complaint: str) -> bool:
    try:
        header = read_jpeg_header(jpeg)
    except ValueError:
        return False
    if "subsampling" in complaint and not header.num_stray:
        return _pillow_decodes(jpeg)
    bare: str | None = None
    if header.num_stray:
        jpeg = _without_strays(jpeg, header)
        bare = _complaint(jpeg)
        if bare is None:
            return True
    strays = _STRAYS_AT_END.search(bare or complaint)
    if strays is None:
        return False
    end = jpeg.rfind(_EOI)
    return _complaint(jpeg[: end - int(strays[1])] + _EOI) is None


def _without_strays(jpeg: bytes, header: JpegHeader) -> bytes:
    """Returns the file without the bytes between the segments of its header."""
    parts, at = [jpeg[:2]], 2
    while at < header.scan:
        if jpeg[at] == 0xFF and jpeg[at + 1] not in (0x00, 0xFF):
            is_bare = jpeg[at + 1] in WITHOUT_LENGTH
            length = 0 if is_bare else int.from_bytes(jpeg[at + 2 : at + 4], "big")
            parts.append(jpeg[at : at + 2 + length])
            at += 2 + length
        else:
            at += 1
    return b"".join([*parts, jpeg[header.scan :]])


def _pillow_decodes(jpeg: bytes) -> bool:
    from PIL import Image  # takes 15 ms, and hardly any dataset needs it

    try:
        Image.open(io.BytesIO(jpeg), formats=("JPEG",)).load()
    except Exception:  # noqa: BLE001 - Pillow fails in a dozen ways
        return False
    return True


def png_fault(png: Any) -> str | None:
    """Decodes one PNG. Returns the decoder's complaint, or ``None`` if the image is whole."""
    is_deep = png[24] == 16  # bits a sample
    try:
        if is_deep:
            decode_png_depth(png, lambda height, width: np.empty((height, width), dtype=np.uint16))
        else:
            decode_png_rgb(png, lambda height, width: np.empty((height, width, 3), dtype=np.uint8))
    except ValueError as error:
        return str(error)
    return None
