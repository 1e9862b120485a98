"""Brings an episode to one rate: which row of each stream stands for each exported frame, and what that changed.

Frame i lies i / fps seconds after the episode's first frame. It takes the anchor row nearest to that time, and of every
other stream what a training sample takes at that anchor row. Nothing is averaged, and no image lies in the future.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset, Episode
from vlapipe.pipeline.shards.derive.aligned_fields import place
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import ImageStream

__all__ = ["Change", "EpisodeFrames", "add_changes", "declared_fps", "episode_frames"]

_CLOSE_S = 1e-6  # a clock in float32 or float64 seconds is no better


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the one rate changed in a stream: of ``rows`` rows some are left out, and some stand for several frames.

    ``outside`` rows lie before the first or after the last frame; ``dropped`` rows lie between frames. ``repeated``
    counts the frames that have the same row as the frame before. ``moved_s`` is the largest distance in time between a
    frame and its row. ``interpolated`` counts the frames whose values lie between two rows.
    """

    rows: int = 0
    frames: int = 0
    outside: int = 0
    dropped: int = 0
    repeated: int = 0
    interpolated: int = 0
    moved_s: float = 0.0

    @property
    def is_none(self) -> bool:
        """Returns whether each frame has its own row, at its own time, and no row between them is left out."""
        return not (self.dropped or self.repeated or self.interpolated) and self.moved_s <= _CLOSE_S


@dataclass(frozen=True, kw_only=True)
class EpisodeFrames:
    """The exported frames of one episode. All rows count from the start of the episode; arrays are ``(N,)``."""

    anchor_rows: NDArray[np.int64]
    rows: dict[str, NDArray[np.int64]]  # of cameras and sensors, by stream
    changes: dict[str, Change]  # by stream

    def __len__(self) -> int:
        return len(self.anchor_rows)


def declared_fps(dataset: Dataset, fps: float | None) -> float:
    """Returns the rate of the exported frames: ``fps``, or the rate that the schema declares for the anchor.

    Raises:
        UsageError: neither is given.
    """
    if fps is not None:
        return float(fps)
    stream = dataset.schema.anchor_stream
    rate = stream.rate_hz or stream.time.index_rate_hz
    if rate is None:
        measured = f"{dataset.fps:.6g} Hz is measured" if dataset.fps else "add the rate you want"
        raise UsageError(
            f"--fps is missing: the schema declares no rate for {stream.name}, and an export has one rate",
            f"{measured}; for example --fps {max(1, round(dataset.fps))}",
        )
    return float(rate)


def episode_frames(dataset: Dataset, episode: Episode, fps: float, streams: Iterable[str]) -> EpisodeFrames:
    """Returns the frames of an episode, and the rows that cameras and sensors have in them.

    Frames reach from the episode's first training frame to its last one. ``streams`` are the cameras, the streams of
    sensors, and the streams beside the anchor that the state comes from.
    """
    anchor = dataset.schema.anchor
    first, count = episode.row["frame_start"], episode.row["num_frames"]
    clock = episode[f"{anchor}/timestamp"]
    times = _seconds_from(clock, clock[first])
    anchor_rows, wanted = _nearest_rows(times, first, first + count - 1, fps)
    changes = {anchor: _change(times, anchor_rows, wanted)}
    rows = {}
    for name in streams:
        stamps = _seconds_from(episode[f"{name}/timestamp"], clock[first])
        rows[name] = episode[f"align/{name}"][anchor_rows].astype(np.int64)
        changes[name] = _change(stamps, rows[name], wanted)
    for name in _streams_of_state(dataset):
        stamps = episode[f"{name}/timestamp"]
        spec = dataset.schema.stream(name)
        assert not isinstance(spec, ImageStream)
        placed = place(spec, "state", clock[anchor_rows], stamps)
        change = _change(_seconds_from(stamps, clock[first]), placed.before, wanted)
        changes[name] = replace(change, interpolated=int(np.count_nonzero(placed.before != placed.after)))
    return EpisodeFrames(anchor_rows=anchor_rows, rows=rows, changes=changes)


def add_changes(one: dict[str, Change], other: dict[str, Change]) -> dict[str, Change]:
    """Returns the changes of two parts of a dataset together, by stream."""
    found = dict(one)
    for name, change in other.items():
        before = found.get(name, Change())
        found[name] = Change(
            **{key: value + getattr(before, key) for key, value in vars(change).items() if key != "moved_s"},
            moved_s=max(before.moved_s, change.moved_s),
        )
    return found


def _streams_of_state(dataset: Dataset) -> list[str]:
    """The streams beside the anchor that fields of the state come from, each once."""
    schema = dataset.schema
    streams = (path.partition("/")[0] for path in schema.sample.state)
    return [stream for stream in dict.fromkeys(streams) if stream != schema.anchor]


def _seconds_from(stamps: NDArray[Any], begin: Any) -> NDArray[np.float64]:
    """Seconds since ``begin``, which may belong to another clock. Whole nanoseconds are subtracted as such."""
    if stamps.dtype == begin.dtype:
        return seconds(stamps - begin)
    in_seconds: NDArray[np.float64] = seconds(stamps) - seconds(np.array([begin]))[0]
    return in_seconds


def _nearest_rows(
    times: NDArray[np.float64], first: int, last: int, fps: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the row nearest to each frame (the earlier of two), and the frames' times ``i / fps``."""
    count = int(np.floor(times[last] * fps + 0.5)) + 1
    wanted = np.arange(count) / fps
    inside = times[first : last + 1]
    after = np.clip(np.searchsorted(inside, wanted), 0, len(inside) - 1)
    before = np.maximum(after - 1, 0)
    rows = np.where(np.abs(wanted - inside[before]) <= np.abs(inside[after] - wanted), before, after)
    return first + rows.astype(np.int64), wanted


def _change(times: NDArray[np.float64], rows: NDArray[np.int64], wanted: NDArray[np.float64]) -> Change:
    used = len(np.unique(rows))
    span = int(rows[-1] - rows[0]) + 1
    return Change(
        rows=len(times),
        frames=len(rows),
        outside=len(times) - span,
        dropped=span - used,
        repeated=len(rows) - used,
        moved_s=float(np.abs(times[rows] - wanted).max()),
    )
