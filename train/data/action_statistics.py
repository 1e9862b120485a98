"""Statistics of actions that were chosen when training, and that ingest could not know: over a part of the frames.

The frames are the same in each run and on each rank, so a resumed run normalizes as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.data.batch_maker import BatchMaker
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.moments import Moments, with_floor
from vlapipe.train.data.sample_steps import Steps

__all__ = ["measured_actions"]

_RUNS, _RUN = 128, 32  # so many places of the train split, and so many frames in a row at each
_QUANTILES = (0.01, 0.99)


def measured_actions(sources: Sources, steps: Mapping[str, Steps], spec: SampleSpec) -> Moments | None:
    """Return the statistics of ``action`` ``(H, A)`` over all its columns A; ``None`` if the train split has no action.

    Of a larger dataset, 4,096 frames count, evenly from the whole train split; ``min`` and ``max`` are theirs.
    """
    frames = FrameIndex(sources, "train")
    if not frames.num_frames:
        return None
    entries = {key: steps[key] for key in (STATE, "action")}
    maker = BatchMaker(sources, entries, replace(spec, images={}, sensors={}), may_unpack=lambda: False)
    found: list[NDArray[np.float32]] = []
    for numbers in _runs(frames.num_frames):
        [batch] = maker.make(frames.plan(numbers, numbers))
        found.append(batch["action"][~batch["action_is_pad"]].numpy())
    actions = np.concatenate(found).astype(np.float64)
    if not len(actions):
        return None
    low, high = np.quantile(actions, _QUANTILES, axis=0)
    values = {
        "mean": actions.mean(axis=0),
        "std": actions.std(axis=0),
        "min": actions.min(axis=0),
        "max": actions.max(axis=0),
        "q01": low,
        "q99": high,
    }
    arrays = {name: value.astype(np.float32) for name, value in values.items()}
    moments = Moments(**arrays, count=np.full(actions.shape[1], float(len(actions))))
    return with_floor(moments, sources.first.schema) if spec.action_form is None else moments


def _runs(num_frames: int) -> list[NDArray[np.int64]]:
    if num_frames <= _RUNS * _RUN:
        return [np.arange(first, min(first + _RUN, num_frames)) for first in range(0, num_frames, _RUN)]
    starts = np.linspace(0, num_frames - _RUN, _RUNS).astype(np.int64)
    return [start + np.arange(_RUN) for start in starts]
