"""Answers of three simple predictors, which a policy must beat: the mean action, the last action, the nearest state.

``mean``: the mean action of the train split, step by step. ``hold``: the recorded action one step before the frame, for
the whole chunk; the mean where there is none. ``nearest``: the chunk of the train frame whose newest state is nearest,
of those with the same instruction. Shape letters: B batch, N frames of the train split, H horizon, A action, D state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.dataset_group import IMAGES, SENSORS
from vlapipe.train.data.joining.embodiments import EMBODIMENT
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.sample_spec import SampleSpec
from vlapipe.train.data.window_size import Window
from vlapipe.train.evaluation.action_error import MEAN, recorded_actions
from vlapipe.train.run_loader import make_loader, open_datasets

__all__ = ["RecordedActions", "Yardsticks"]

_MOST_FRAMES = 4096  # of the train split
_MOST_WITH_IMAGES = 512  # where transforms may need the images too
_RUN = 8  # frames of the train split that follow each other; the runs are evenly spread
_BATCH = 256


class Yardsticks:
    """The train split's frames to compare with, and the recorded actions of the split that is evaluated."""

    def __init__(self, config: TrainConfig, split: str) -> None:
        """Read what is needed for ``split``, with the run's datasets, window, episodes and transforms."""
        loader = _numbers_loader(config, "train", _RUN)
        self._spec = loader.spec
        most = (_MOST_WITH_IMAGES if loader.transforms else _MOST_FRAMES) // _RUN
        states, actions, counts, kinds = [], [], [], list[tuple[str, int]]()
        for batch in loader.every_other(0, max(1, -(-len(loader) // most))):
            chunk, counted = recorded_actions(self._spec, batch)
            states.append(_newest(self._spec, batch).clone())
            actions.append(chunk.clone())
            counts.append(counted.clone())
            kinds += _kinds(batch)
        self._states, self._actions = torch.cat(states), torch.cat(actions)
        counted = torch.cat(counts)
        kept = torch.where(counted, self._actions.double(), 0.0).sum(0) / counted.double().sum(0).clamp_min(1)
        self._mean = kept.float()  # (H, A)
        self._actions = torch.where(counted, self._actions, self._mean)  # what an episode's end lacks
        self._scale = self._states.nan_to_num().double().std(0).float().clamp_min(1e-9)
        self._of_kind: dict[tuple[str, int], Tensor] = {}
        for kind in dict.fromkeys(kinds):
            self._of_kind[kind] = torch.tensor([i for i, each in enumerate(kinds) if each == kind])
        self.recorded = RecordedActions(config, split)

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the chunk ``(B, H, A)`` of each yardstick for a batch, on the CPU."""
        size = len(batch["task"])
        mean = self._mean.expand(size, -1, -1)
        last = self.recorded.before(batch)
        hold = torch.where(last.isfinite().all(1)[:, None, None], last[:, None].expand_as(mean), mean)
        return {MEAN: mean, "hold": hold, "nearest": self._nearest(batch)}

    def _nearest(self, batch: Batch) -> Tensor:
        states = (_newest(self._spec, batch) / self._scale).nan_to_num()
        found = torch.empty(len(states), dtype=torch.int64)
        of_batch = _kinds(batch)
        for kind in dict.fromkeys(of_batch):
            mine = torch.tensor([i for i, each in enumerate(of_batch) if each == kind])
            those = self._of_kind.get(kind, torch.arange(len(self._states)))
            distance = torch.cdist(states[mine], (self._states[those] / self._scale).nan_to_num())
            found[mine] = those[distance.argmin(1)]
        return self._actions[found]


class RecordedActions:
    """The first action of the chunk of every frame of a split, in recorded order.

    Frames are those of state and action alone: some come before the first image, and are none of a whole sample.
    ``episode`` (F,), ``row`` (F,) of the anchor, ``time_s`` (F,) from the episode's first anchor row, ``action`` (F, A)
    as recorded, NaN where it is padding. ``step_s`` is the time between actions of a chunk; 0 if it is unknown.
    """

    def __init__(self, config: TrainConfig, split: str) -> None:
        """Read them all, without images unless the run has transforms."""
        loader = _numbers_loader(config, split, _BATCH)
        rate = loader.described(loader.spec).rates_hz.get("action")
        self.step_s = 1 / rate if rate else 0.0
        episodes, rows, times, actions = [], [], [], []
        for batch in loader:
            chunk, counts = recorded_actions(loader.spec, batch)
            episodes.append(batch["episode_index"].numpy().copy())
            rows.append(batch["frame_index"].numpy().copy())
            times.append(batch["timestamp"].numpy().copy())
            actions.append(torch.where(counts[:, 0], chunk[:, 0], torch.nan).numpy().copy())
        self.episode, self.row, self.time_s, self.action = (
            np.concatenate(each) for each in (episodes, rows, times, actions)
        )
        apart = np.diff(self.time_s)[np.diff(self.episode) == 0]
        self._near_s = 0.5 * min(float(np.median(apart)) if len(apart) else np.inf, self.step_s)
        self._span_s = float(self.time_s.max(initial=0.0)) + 10 * self.step_s + 1.0
        self._keys = self._key(self.episode, self.time_s)

    def _key(self, episodes: NDArray[Any], times: NDArray[Any]) -> NDArray[np.float64]:
        """One number for episode and time, which ascends as frames do."""
        keys: NDArray[np.float64] = episodes * self._span_s + times
        return keys

    def before(self, batch: Batch) -> Tensor:
        """Returns the action one step before each frame, (B, A); NaN where there is none."""
        wanted = self._key(_numpy(batch["episode_index"]), _numpy(batch["timestamp"]) - self.step_s)
        after = np.searchsorted(self._keys, wanted).clip(1, max(1, len(self._keys) - 1))
        nearest = after - (wanted - self._keys[after - 1] <= self._keys[after % len(self._keys)] - wanted)
        is_there = np.abs(self._keys[nearest] - wanted) <= self._near_s
        return torch.from_numpy(np.where(is_there[:, None], self.action[nearest], np.nan))


def _numbers_loader(config: TrainConfig, split: str, batch_size: int) -> Loader:
    """Returns a loader of state and action alone, in recorded order; of everything if the run has transforms."""
    window = Window.from_table(config.sample, config.action)
    if not config.data.transforms:
        times = {k: t for k, t in (window.delta_timestamps or {}).items() if not k.startswith((IMAGES, SENSORS))}
        window = replace(window, cameras=(), sensors={}, delta_timestamps=times or None)
    return make_loader(
        config,
        open_datasets(config),
        window=window,
        batch_size=batch_size,
        seed=config.seed,
        num_workers=0,
        shuffle=False,
        split=split,
        transforms=config.data.transforms or (),
        say=lambda _: None,
    )


def _newest(spec: SampleSpec, batch: Batch) -> Tensor:
    """The state (B, D) of the frame itself; the newest there is, if the window does not have it."""
    state: Tensor = batch[STATE][:, spec.newest]
    return state.cpu()


def _kinds(batch: Batch) -> list[tuple[str, int]]:
    """The instruction and the robot of each sample."""
    robots: list[int] = batch[EMBODIMENT].tolist() if EMBODIMENT in batch else [0] * len(batch["task"])
    return [*zip(batch["task"], robots, strict=True)]


def _numpy(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.cpu().numpy()
    return array
