"""Finds JPEG files whose image data is damaged although the file has a header and an end.

Only a decoder sees all damage. Decoding each image, even at 1/8 of its size, takes three times as long as all the rest
of an ingest of images (docs/raw-data.md has the figures), so by default only suspects are decoded: the images that
are small among their neighbours, as after a lost packet, and images whose data holds bytes that no encoder writes.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

__all__ = ["decode_fault", "has_odd_bytes", "small_among_neighbours"]

_SHARE = 4  # of a camera's images, one in so many is decoded: those that are smallest among their neighbours
_SMALL = 0.9  # and every image smaller than this share of its neighbours' median
_NEIGHBOURS = 4  # on each side
_ZEROS = bytes(32)  # compressed data has no such run; a hole in a file is filled with zeros
_NO_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd9\xff]")  # in the data of a baseline JPEG
_START_OF_SCAN = b"\xff\xda"


def small_among_neighbours(num_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which images of a camera are suspects by their file sizes, given in the order of their times."""
    count = len(num_bytes)
    if not count:
        return np.zeros(0, dtype=np.bool_)
    padded = np.pad(num_bytes, _NEIGHBOURS, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1), axis=1)
    share = num_bytes / np.maximum(usual, 1)
    suspects: NDArray[np.bool_] = share < _SMALL
    suspects[np.argsort(share, kind="stable")[: -(-count // _SHARE)]] = True
    return suspects


def has_odd_bytes(jpeg: memoryview, *, is_progressive: bool) -> bool:
    """Returns whether a JPEG's data holds a run of zeros, or a marker where none can be."""
    data = bytes(jpeg)
    if data.find(_ZEROS) >= 0:
        return True
    scan = data.find(_START_OF_SCAN)
    return not is_progressive and _NO_MARKER.search(data, scan + len(_START_OF_SCAN)) is not None


def decode_fault(jpeg: Any) -> str | None:
    """Decodes one JPEG at the smallest scale. Returns the decoder's complaint, or ``None`` if there is none."""
    try:
        simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", min_height=1, min_width=1)
    except ValueError as error:
        return str(error)
    except KeyError:  # simplejpeg has no name for some ways of subsampling, and training cannot read them either
        return "colour is subsampled in a way that is not known"
    return None
