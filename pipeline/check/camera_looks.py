"""Looks at the images of one camera in one episode: frozen, black or of one colour; and the colours, for comparison.

Few images are decoded, at an eighth of their size, so that ingest hardly becomes slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.same_content import image_hashes, trained_fields
from vlapipe.pipeline.check.values import by_column
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.shards.format.image_decode import decode_rgb
from vlapipe.pipeline.stream_rows import ImageRows, Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Channels, ImageStream, Schema, Stream

__all__ = ["CameraLook", "check_cameras", "swapped_episodes"]

_GRID = 4  # a picture is described by the mean colours of so many times so many fields
_SAMPLED = 2  # images decoded for the colours
_TRIED = 8  # images decoded if one of them may be blank
_LARGE = 512  # of a larger picture, not every pixel is looked at
_BLANK = 0.25  # share of the images that may be blank
_SMALL = 0.35  # a blank image has fewer bytes than this share of the camera's median
_BARE = 0.03  # or fewer bytes a pixel than this
_BLACK = 8.0  # mean level of a nearly black image
_ONE_COLOUR = 2.0  # standard deviation of the levels of an image of one colour
_LEAST_FROZEN = 5  # equal images in a row that say something,
_FROZEN_S = 0.5  # and how long they last,
_FROZEN = 0.3  # and their share of all images
_MOVES = 0.15  # share of its span in the episode that a column must move while the camera is frozen
_PARTS = 4  # means of so many parts of that time are compared, because noise is no motion
_OVER_NOISE = 2.0  # how many times the deviation within a part these means must differ
_APART = 8.0  # mean distance of levels from which two pictures have other colours
_NEARER = 0.5  # with red and blue exchanged, a picture must be nearer to the others by this factor


@dataclass(frozen=True, kw_only=True)
class CameraLook:
    """What some images of a camera look like, in true RGB. ``grid`` is their mean picture, ``(_GRID, _GRID, 3)``."""

    grid: NDArray[np.float32]

    @property
    def colour(self) -> tuple[float, float, float]:
        """Returns the mean levels of red, green and blue."""
        red, green, blue = self.grid.reshape(-1, 3).mean(axis=0, dtype=np.float64).tolist()
        return red, green, blue


def check_cameras(
    streams: Mapping[str, Rows], specs: Mapping[str, Stream], schema: Schema, findings: Findings
) -> dict[str, CameraLook]:
    """Returns what each camera's images look like, by camera, and reports cameras that show nothing or hang.

    Args:
        streams: the episode's streams, in order of time.
        specs: the schema's entry for each stream.
        schema: names the anchor and the fields that tell whether the robot moves.
        findings: collects the faults.
    """
    looks: dict[str, CameraLook] = {}
    for name, rows in streams.items():
        spec, anchor = specs[name], streams[schema.anchor]
        if not isinstance(rows, ImageRows) or not rows.num_rows:
            continue
        assert isinstance(spec, ImageStream)
        assert isinstance(anchor, StreamRows)
        _check_frozen(rows, anchor, schema, findings)
        if spec.unit is not None:
            continue  # depth has no colour
        look = _look_at_camera(rows, spec.channels, findings)
        if look is not None:
            looks[name] = look
    return looks


def _look_at_camera(rows: ImageRows, channels: Channels, findings: Findings) -> CameraLook | None:
    """Returns what the camera's images look like, and reports black images and images of one colour.

    Returns ``None`` if no sampled image can be decoded.

    Args:
        rows: the camera's images.
        channels: the order of the colours in the files; pixels are in true RGB already.
        findings: collects the faults.
    """
    at = (np.arange(_SAMPLED) + 0.5) / _SAMPLED * rows.num_rows
    pictures = [picture for row in at.astype(int).tolist() if (picture := _picture(rows, row, channels)) is not None]
    _check_blank(rows, channels, findings, seems_blank=any(map(_blankness, pictures)))
    if not pictures:
        return None
    return CameraLook(grid=np.mean([_grid(picture) for picture in pictures], axis=0, dtype=np.float32))


def _picture(rows: ImageRows, row: int, channels: Channels) -> NDArray[np.uint8] | None:
    if rows.offset is None:
        return rows.data[row, :: max(1, rows.height // 64), :: max(1, rows.width // 64)]
    try:
        picture = decode_rgb(
            rows.encoded(row).data, (1, 1), lambda *at: np.empty((*at, 3), dtype=np.uint8), channels, lambda _: None
        )
    except ValueError:
        return None  # whoever decodes every image reports it
    across, down = max(1, picture.shape[0] // _LARGE), max(1, picture.shape[1] // _LARGE)
    return picture if across == down == 1 else picture[::across, ::down].copy()


def _grid(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the mean colours of the fields of a picture; a picture of few pixels has each pixel in several fields."""
    fields: NDArray[np.float32] = picture.astype(np.float32)
    for axis in (0, 1):
        size = fields.shape[axis]
        edges = [(i * size // _GRID, max((i + 1) * size // _GRID, i * size // _GRID + 1)) for i in range(_GRID)]
        fields = np.stack([fields.take(range(*edge), axis).mean(axis) for edge in edges], axis)
    return fields


def _check_blank(rows: ImageRows, channels: Channels, findings: Findings, *, seems_blank: bool) -> None:
    """Reports nearly black images and images of one colour, if they are a quarter of all images or more.

    A blank JPEG is small. So, unless ``seems_blank``, only the smallest files are decoded, and of these a few.
    """
    if seems_blank or rows.offset is None:
        suspects = np.arange(rows.num_rows)
    else:
        size = np.diff(rows.offset)
        suspects = np.flatnonzero((size < _SMALL * np.median(size)) | (size < _BARE * rows.height * rows.width))
    if len(suspects) < _BLANK * rows.num_rows:
        return
    tried = suspects[np.unique(np.linspace(0, len(suspects) - 1, _TRIED).astype(int))].tolist()
    blank = [(row, what) for row in tried if (what := _blankness(_picture(rows, row, channels))) is not None]
    count = round(len(suspects) * len(blank) / len(tried))
    if not blank or count < _BLANK * rows.num_rows:
        return
    row, what = blank[0]
    findings.add(
        "image.blank",
        rows.source.path,
        expected="images that show something",
        found=f"{what} in image {row} (counted from 0), and in about {count} of {rows.num_rows}",
    )


def _blankness(picture: NDArray[np.uint8] | None) -> str | None:
    if picture is None:
        return None
    mean, spread = picture.mean(axis=(0, 1)), picture.std(axis=(0, 1)).max()
    if mean.max() < _BLACK and spread < _BLACK:
        return "nearly black"
    return "one colour ({:.0f}, {:.0f}, {:.0f})".format(*mean) if spread < _ONE_COLOUR else None


def _check_frozen(rows: ImageRows, anchor: StreamRows, schema: Schema, findings: Findings) -> None:
    """Reports a camera that repeats one image for long while the robot moves."""
    if rows.num_rows < _LEAST_FROZEN:
        return
    hashes = image_hashes(rows)
    ends = np.append(np.flatnonzero(hashes[1:] != hashes[:-1]), len(hashes) - 1)
    starts = np.concatenate([[0], ends[:-1] + 1])
    longest = int(np.argmax(ends - starts))
    first, last = int(starts[longest]), int(ends[longest])
    count = last - first + 1
    begins, until = seconds(rows.timestamp[[first, last]]).tolist()
    if count < max(_LEAST_FROZEN, _FROZEN * rows.num_rows) or until - begins < _FROZEN_S:
        return
    if not _moves(anchor, begins, until, schema):
        return
    findings.add(
        "image.frozen",
        rows.source.path,
        expected="images that change while the robot moves",
        found=f"image {first} (counted from 0) {count} times, for {until - begins:.3g} s",
    )


def _moves(anchor: StreamRows, begins: float, until: float, schema: Schema) -> bool:
    """Returns whether a column of state or action moves by a good part of its span between two times."""
    clock = seconds(anchor.timestamp)
    start, stop = np.searchsorted(clock, [begins, until])
    if stop - start < _PARTS:
        return False
    edges = np.linspace(start, stop, _PARTS + 1).astype(int)[:-1] - start
    for name in trained_fields(schema, schema.anchor):
        values = anchor.fields.get(name)
        if values is None:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            parts = np.split(by_column(values)[start:stop].astype(np.float64), edges[1:])
            moved = np.ptp([part.mean(axis=0) for part in parts], axis=0)
            noise = np.max([part.std(axis=0) for part in parts], axis=0)
            whole = np.ptp(by_column(values), axis=0)
            if np.any((moved > _MOVES * whole) & (moved > _OVER_NOISE * noise)):
                return True
    return False


def swapped_episodes(as_is: NDArray[np.float32]) -> list[int]:
    """Returns the episodes whose red and blue are exchanged against most others of the camera, by their number.

    Pictures are compared field by field, so that red things in one episode and blue things in another are no exchange.

    Args:
        as_is: the mean picture of each episode, ``(episodes, _GRID, _GRID, 3)``.
    """
    if len(as_is) < 2:
        return []
    exchanged = as_is[..., ::-1]
    swapped = np.zeros(len(as_is), dtype=np.bool_)
    reference = as_is[0]
    for _ in range(3):
        distance = np.abs(as_is - reference).mean(axis=(1, 2, 3))
        other = np.abs(exchanged - reference).mean(axis=(1, 2, 3))
        swapped = (distance > _APART) & (other < _NEARER * distance)
        reference = np.median(np.where(swapped[:, None, None, None], exchanged, as_is), axis=0)
        if 2 * np.count_nonzero(swapped) > len(as_is):
            reference = reference[..., ::-1]
    return np.flatnonzero(swapped).tolist()
