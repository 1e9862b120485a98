"""Statistics that ingest could not know, of actions that were chosen when training: over a part of the frames.

The frames are the same in each run and on each rank, so a resumed run normalizes as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import action_size
from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.train.data.batch_layout import SampleSpec, with_action_moments
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.moments import Moments, with_floor
from vlapipe.train.data.sample_steps import Steps

__all__ = ["measured", "measured_actions", "runs_of_frames", "with_measured_actions"]

_RUNS, _RUN = 64, 16  # so many places of the train split, and at most so many frames in a row at each
_ACTIONS = 256  # of the chunks at one place, if 16 frames have more: frames of packed shards take a while
_QUANTILES = (0.01, 0.99)


def with_measured_actions(sources: Sources, steps: Mapping[str, Steps], spec: SampleSpec) -> SampleSpec:
    """Return the spec with statistics of ``action``; without them if a robot has no action in the train split."""
    parts = {robot: sources.of_robot(robot) for robot in sources.robots} or {"": sources}
    alone = replace(spec, embodiments={})
    found = {robot: measured_actions(of, steps, alone) for robot, of in parts.items()}
    known = {robot: moments for robot, moments in found.items() if moments is not None}
    return with_action_moments(spec, known) if len(known) == len(found) else spec


def measured_actions(sources: Sources, steps: Mapping[str, Steps], spec: SampleSpec) -> Moments | None:
    """Return the statistics of ``action`` ``(H, A)`` over all its columns A; ``None`` if the train split has no action.

    Of a larger dataset, the chunks of up to 1,024 frames count, evenly from the whole train split. ``min`` and ``max``
    are theirs.
    """
    frames = FrameIndex(sources, "train")
    if not frames.num_frames:
        return None
    # Of the state only the frame's own row is needed. Shards that are not unpacked yet are read as they are.
    entries = {STATE: Steps(offsets=range(1), by_time=False), "action": steps["action"]}
    alone = replace(spec, images={}, sensors={}, state=(1, spec.state[1]), newest=0)
    maker = BatchMaker(sources, entries, alone)
    found: list[NDArray[np.float32]] = []
    length = min(_RUN, max(1, _ACTIONS // spec.action[0]))
    for numbers in runs_of_frames(frames.num_frames, _RUNS, length):
        [batch] = maker.make(frames.plan(numbers, numbers))
        found.append(batch["action"][~batch["action_is_pad"]].numpy())
    schema = sources.first.schema
    own = action_size(schema) if spec.action_form is None else spec.action[1]
    moments = measured(np.concatenate(found)[:, :own])  # without padded columns
    return moments if moments is None or spec.action_form is not None else with_floor(moments, schema)


def measured(rows: NDArray[np.float32]) -> Moments | None:
    """Return the statistics of each column of ``(rows, ...)`` finite values; ``None`` if there is no row."""
    values = rows.astype(np.float64)
    if not len(values):
        return None
    low, high = np.quantile(values, _QUANTILES, axis=0)
    statistics = {
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q01": low,
        "q99": high,
    }
    arrays: dict[str, Any] = {name: np.asarray(value, dtype=np.float32) for name, value in statistics.items()}
    return Moments(**arrays, count=np.full(values.shape[1:], float(len(values))))


def runs_of_frames(num_frames: int, num_runs: int, length: int) -> list[NDArray[np.int64]]:
    """Return the numbers of at most ``num_runs * length`` frames, evenly from all of them, in runs of neighbours."""
    if num_frames <= num_runs * length:
        return [np.arange(first, min(first + length, num_frames)) for first in range(0, num_frames, length)]
    starts = np.linspace(0, num_frames - length, num_runs).astype(np.int64)
    return [start + np.arange(length) for start in starts]
