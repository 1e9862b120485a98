"""Lays out the rows of each batch entry around a frame: by row numbers or by seconds, before the frame and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import SampleDefaults

__all__ = ["Steps", "sample_steps"]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Where the rows of a window lie, from the frame on.

    ``offsets`` are rows of the entry's own stream, or seconds if ``by_time``. The ``ahead`` rows follow after them:
    rows or seconds of the anchor, at which an observation of another stream is the newest one.
    """

    offsets: Sequence[float]  # a range if they are rows, so that a window beyond any memory costs none
    by_time: bool
    ahead: Sequence[float] = ()
    ahead_by_time: bool = False

    @property
    def num_rows(self) -> int:
        """Number of rows of the window."""
        return len(self.offsets) + len(self.ahead)

    @property
    def stride(self) -> int | None:
        """The distance of the rows if the window ends at the frame, row by row; ``None`` if it is another one."""
        if self.by_time or self.ahead:
            return None
        return self.offsets.step if isinstance(self.offsets, range) else None

    @property
    def newest(self) -> int:
        """The frame's own row in the window; -1 if the window does not have it."""
        return self.offsets.index(0) if 0 in self.offsets else -1


_MOST_BY_TIME = 1_000_000  # rows of a window in seconds; each is a number in memory


def sample_steps(dataset: Dataset) -> dict[str, Steps]:
    """Return the steps of every batch entry, as the dataset's (chosen) schema says.

    Raises:
        UsageError: a window in seconds has too many rows, or two ways of saying a window are given.
    """
    sample = dataset.schema.sample
    for window in ("state", "sensor", "image", "action"):
        num_rows, window_s = getattr(sample, f"{window}_rows"), getattr(sample, f"{window}_s")
        if window_s is not None and num_rows > _MOST_BY_TIME:
            problem = f"{window}_s = {window_s:g}: a window in seconds of {num_rows:,} rows"
            raise UsageError(problem, f"{window}_s is in seconds; or say {window}_rows, at most {_MOST_BY_TIME:,}")
    timestamps = dict(sample.delta_timestamps)
    steps = {STATE: _observed(sample, "state")}
    steps |= {f"observation.sensors.{name}": _observed(sample, "sensor") for name, _ in sample.sensors}
    steps |= {f"observation.images.{camera}": _observed(sample, "image") for camera in dataset.cameras}
    by_time = sample.action_s is not None
    steps["action"] = Steps(offsets=_action_steps(sample, 0, sample.action_rows), by_time=by_time)
    for entry, seconds in timestamps.items():
        if sample.ahead_rows and entry != "action":
            raise UsageError(f"delta_timestamps {entry} and ahead_rows cannot both be given", "leave out one of them")
        steps[entry] = Steps(offsets=seconds, by_time=True)
    return steps


def _observed(sample: SampleDefaults, window: str) -> Steps:
    num_rows, window_s = getattr(sample, f"{window}_rows"), getattr(sample, f"{window}_s")
    if window_s is None:
        stride = getattr(sample, f"{window}_stride")
        offsets: Sequence[float] = range(-(num_rows - 1) * stride, 1, stride)
    else:
        offsets = tuple(-k * window_s / num_rows for k in reversed(range(num_rows)))
    ahead, by_time = _action_steps(sample, 1, sample.ahead_rows + 1), sample.action_s is not None
    return Steps(offsets=offsets, by_time=window_s is not None, ahead=ahead, ahead_by_time=by_time)


def _action_steps(sample: SampleDefaults, first: int, stop: int) -> Sequence[float]:
    """The distances from the frame of the actions ``first <= k < stop``, in rows or in seconds."""
    if sample.action_s is None:
        return range(first * sample.action_stride, stop * sample.action_stride, sample.action_stride)
    step_s = sample.action_s / sample.action_rows
    return tuple(k * step_s for k in range(first, stop))
