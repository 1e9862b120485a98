"""Recognizes the same demonstration under other stamps or cut anew, by its values and image bytes without the clock.

An episode's sketch is a few numbers that depend on its content alone. The numbers are the smallest hashes of its
passages (of eight rows, or of one image). Two episodes that share most passages share most of these numbers (Broder
1997, "On the resemblance and containment of documents").
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import picked
from vlapipe.pipeline.stream_rows import ImageRows, Rows, StreamRows
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["Sketch", "Sketches", "image_hashes", "sketch_of", "trained_fields"]

_ROWS = 8  # rows of a passage, a power of 2: single rows may be equal by chance, for example in a grid world
_KEPT = 16  # hashes of a sketch
_SHARED = 0.6  # share of the hashes that the same demonstration has in common; about as many of its passages
_LEAST = 8  # fewer passages say little
_NUMBER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication permutes the 64-bit numbers
_SHIFT = np.uint64(29)
_PROBED = (0.25, 0.5, 0.75)  # places in a file from which bytes are hashed
_PROBE = 32  # bytes hashed at each place

Sketch = dict[str, list[int]]  # by stream


def sketch_of(streams: Mapping[str, Rows], schema: Schema) -> Sketch:
    """Returns the smallest hashes of the anchor's passages and of each camera's images; none of too short streams."""
    sketch: Sketch = {}
    for name, rows in streams.items():
        if not rows.num_rows:
            continue  # an optional stream that the episode lacks
        if isinstance(rows, ImageRows):
            hashes = image_hashes(rows)
        elif name == schema.anchor:
            hashes = _passages(rows, schema)
        else:
            continue
        smallest = _smallest(hashes)
        if len(smallest) >= _LEAST:
            sketch[name] = smallest.tolist()
    return sketch


def _smallest(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the smallest distinct hashes in order. Only some hashes are sorted, because most of them are distinct."""
    some = 4 * _KEPT
    if len(hashes) > some:
        found = np.unique(np.partition(hashes, some)[:some])
        if len(found) >= _KEPT:
            return found[:_KEPT]
    return np.unique(hashes)[:_KEPT]


def _passages(rows: StreamRows, schema: Schema) -> NDArray[np.uint64]:
    """Returns one hash for each eight rows in a row, without passages in which nothing changes.

    The values are those of the state and the action, because other fields may be stamps. All values count if neither
    takes any of the anchor.
    """
    arrays = [rows.fields[name] for name in trained_fields(schema, schema.anchor) if name in rows.fields]
    of_row = np.zeros(rows.num_rows, dtype=np.uint64)
    if not arrays or rows.num_rows < _ROWS:
        return of_row[:0]
    product = np.empty_like(of_row)
    columns = (column for array in arrays for column in array.reshape(rows.num_rows, -1).T)
    for number, column in enumerate(columns, 1):
        of_row += np.multiply(_bits(column), np.uint64(pow(int(_NUMBER), number, 1 << 64)), out=product)
    changes = np.zeros(rows.num_rows, dtype=np.int64)
    np.cumsum(of_row[1:] != of_row[:-1], out=changes[1:])
    passages, length = _mixed(of_row), 1
    while length < _ROWS:  # of 2, 4, then 8 rows
        passages = _mixed(passages[:-length] * _NUMBER + passages[length:])
        length *= 2
    return passages[changes[_ROWS - 1 :] > changes[: len(changes) - _ROWS + 1]]


def trained_fields(schema: Schema, stream: str) -> list[str]:
    """Returns the names of the stream's fields in state and action; all its fields of numbers if there are none."""
    paths = dict.fromkeys((*schema.sample.state, *schema.action.of))
    names = [name for of, _, name in (path.partition("/") for path in paths) if of == stream]
    spec = schema.stream(stream)
    assert not isinstance(spec, ImageStream)
    return names or [field.name for field in spec.fields if not field.text]


def _bits(column: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    column = np.ascontiguousarray(column)
    return column.view(f"u{column.dtype.itemsize}")


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    numbers = numbers * _NUMBER + np.uint64(1)
    return numbers ^ (numbers >> _SHIFT)


def image_hashes(rows: ImageRows) -> NDArray[np.uint64]:
    """Returns one hash an image, ``(rows,)``; equal images have equal hashes. There is at least one image.

    Of a file, the length and some bytes are hashed: two different images of one camera never agree in them.
    """
    if rows.offset is None:
        num_words = rows.data[0].nbytes // 8
        weights = _mixed(_mixed(np.arange(1, num_words + 1, dtype=np.uint64))) | np.uint64(1)
        words = (image.reshape(-1).view(np.uint8)[: 8 * num_words].view(np.uint64) for image in rows.data)
        return _mixed(np.array([(each * weights).sum(dtype=np.uint64) for each in words], dtype=np.uint64))
    start, size = rows.offset[:-1], np.diff(rows.offset)
    hashes = _mixed(size.astype(np.uint64))
    for place in _PROBED:
        first = start + np.maximum((size * place).astype(np.int64) - _PROBE // 2, 0)
        at = np.minimum(first[:, None] + np.arange(_PROBE), rows.offset[1:, None] - 1)
        for word in picked(rows.data, at).view(np.uint64).T:
            hashes = _mixed(hashes ^ word)
    return hashes


class Sketches:
    """The sketches of all episodes, as arrays: some hundred bytes an episode."""

    def __init__(self) -> None:
        self._hashes: dict[str, array[int]] = {}  # by stream
        self._owners: dict[str, array[int]] = {}  # the number of the episode of each hash
        self._ranks: dict[str, array[int]] = {}  # the place of the stream in the episode's sketch
        self._num_episodes = 0

    def add(self, sketch: Sketch) -> None:
        """Add the next episode. Episodes are numbered from 0."""
        for rank, (stream, hashes) in enumerate(sketch.items()):
            if stream not in self._hashes:
                self._hashes[stream], self._owners[stream], self._ranks[stream] = array("Q"), array("q"), array("H")
            self._hashes[stream].extend(hashes)
            self._owners[stream].extend([self._num_episodes] * len(hashes))
            self._ranks[stream].extend([rank] * len(hashes))
        self._num_episodes += 1

    def same(self) -> dict[int, tuple[int, str]]:
        """Returns the episodes with the content of an earlier one in a stream: the number of that one, and the stream.

        If several streams have such content, the first in the order of the episode's sketch counts.
        """
        found: dict[int, tuple[int, int, str]] = {}
        for stream in self._hashes:
            hashes, owners = np.array(self._hashes[stream]), np.array(self._owners[stream])
            first = _first_owners(hashes, owners)
            starts = np.concatenate([[0], np.flatnonzero(np.diff(owners)) + 1, [len(owners)]])
            begins = dict(zip(owners[starts[:-1]].tolist(), itertools.pairwise(starts.tolist()), strict=True))
            for number in np.unique(owners[first != owners]).tolist():
                own = slice(*begins[number])
                rank = self._ranks[stream][own.start]
                for other, _ in Counter(first[own].tolist()).most_common(2):
                    if number in found and found[number][0] <= rank:
                        break
                    if other != number and _is_same(hashes[own].tolist(), hashes[slice(*begins[other])].tolist()):
                        found[number] = rank, other, stream
        return {number: (other, stream) for number, (_, other, stream) in found.items()}


def _first_owners(hashes: NDArray[np.uint64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each hash the first owner of the same one. ``owners`` rise."""
    order = np.argsort(hashes, kind="stable")
    is_new = np.concatenate([[True], hashes[order][1:] != hashes[order][:-1]])
    first = np.empty_like(owners)
    first[order] = owners[order][np.flatnonzero(is_new)[np.cumsum(is_new) - 1]]
    return first


def _is_same(one: Sequence[int], other: Sequence[int]) -> bool:
    """Returns whether most of the smallest hashes of both together are in each of them."""
    smallest = sorted({*one, *other})[: min(len(one), len(other))]
    shared = set(one) & set(other)
    return sum(each in shared for each in smallest) >= _SHARED * len(smallest)
