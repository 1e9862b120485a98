"""Reads the same windows from arrays in memory with PyTorch's ``DataLoader``, sample by sample, as lean as possible.

All variants get frames in an order made beforehand, so that none of them shuffles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from loader_timing import forever
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from vlapipe import Dataset as Shards

__all__ = ["ACTION_ROWS", "ACTION_STRIDE", "REACH", "STATE_ROWS", "Windows", "bare_ways", "streams", "whole_ways"]

STATE_ROWS, ACTION_ROWS, ACTION_STRIDE = 100, 8, 10  # as in the schema's [sample]
REACH = (ACTION_ROWS - 1) * ACTION_STRIDE + 1
NUM_FRAMES = 400_000  # frames drawn at random: their windows alone are 2 GB
Collate = Callable[[list[Any]], Any]
Way = tuple[Dataset[Any], Collate | None]


@dataclass(frozen=True)
class Windows:
    """States ``(rows, 12)`` and actions ``(rows, 7)`` of a whole dataset end to end, and random frames of it.

    ``row`` counts over all episodes. ``first`` and ``stop`` bound the rows of the frame's episode that have an action.
    """

    state: NDArray[np.float32]
    action: NDArray[np.float32]
    row: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    episode: NDArray[np.int64]
    instruction: list[str]

    @classmethod
    def of(cls, dataset: Shards) -> Windows:
        """Copy the windows' data out of a dataset into plain memory."""
        shards = [dataset.arrays(i) for i in range(len(dataset.manifest.shards))]
        joints, pose, action = (
            np.concatenate([shard[name] for shard in shards])
            for name in ("robot/joint_position", "robot/tcp_pose", "action/value")
        )
        lengths, frames = (dataset.column(name).astype(np.int64) for name in ("robot/rows", "num_frames"))
        firsts = np.cumsum(lengths) - lengths
        ends = np.cumsum(frames)
        drawn = np.random.default_rng(0).integers(0, ends[-1], NUM_FRAMES)
        episode = np.searchsorted(ends, drawn, side="right")
        first, count = firsts[episode], frames[episode]
        return cls(
            state=np.concatenate([joints, pose], axis=1),
            action=action,
            row=first + drawn - (ends - frames)[episode],
            first=first,
            stop=first + count,
            episode=episode,
            instruction=dataset.episodes.column("instruction").to_pylist(),
        )

    def whole_rows(self) -> NDArray[np.int64]:
        """Return the rows at which no window leaves its episode."""
        return self.row[(self.row - STATE_ROWS + 1 >= self.first) & (self.row + REACH <= self.stop)]


class WholeSamples(Dataset[Any]):
    """Samples with everything that our loader gives: padded, with masks, task and indices."""

    def __init__(self, windows: Windows) -> None:
        self._state, self._action = windows.state, windows.action
        self._instruction = windows.instruction
        # Lists, because taking a number out of a list costs less than out of an array.
        self._places = [(a.tolist()) for a in (windows.row, windows.first, windows.stop, windows.episode)]
        missing = np.arange(STATE_ROWS)
        self._state_is_pad = np.arange(STATE_ROWS) < missing[:, None]  # one row for each number of missing rows
        self._action_is_pad = np.arange(ACTION_ROWS) >= np.arange(ACTION_ROWS + 1)[:, None]  # by number of rows there

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        row, first, stop, episode = (place[i] for place in self._places)
        begin = row - STATE_ROWS + 1
        missing = max(0, first - begin)
        state = self._state[begin : row + 1]
        if missing:
            state = np.concatenate(
                [np.repeat(self._state[first : first + 1], missing, 0), self._state[first : row + 1]]
            )
        there = min(ACTION_ROWS, (stop - row + ACTION_STRIDE - 1) // ACTION_STRIDE)
        action = self._action[row : row + REACH : ACTION_STRIDE]
        if there < ACTION_ROWS:
            action = np.zeros((ACTION_ROWS, action.shape[1]), np.float32)
            action[:there] = self._action[row:stop:ACTION_STRIDE]
        masks = self._state_is_pad[missing], self._action_is_pad[there]
        return state, action, *masks, episode, row - first, i, self._instruction[episode]


class BareSamples(Dataset[Any]):
    """Two slices at rows where both windows are complete: no padding, no masks, no task."""

    def __init__(self, windows: Windows) -> None:
        self._state, self._action = windows.state, windows.action
        self._row = windows.whole_rows().tolist()

    def __getitem__(self, i: int) -> Any:
        row = self._row[i % len(self._row)]
        return self._state[row - STATE_ROWS + 1 : row + 1], self._action[row : row + REACH : ACTION_STRIDE]


class BareTensors(BareSamples):
    """The same samples as tensors, for PyTorch's own collate."""

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        state, action = super().__getitem__(i)
        return {"observation.state": torch.from_numpy(state), "action": torch.from_numpy(action)}


def join(parts: tuple[NDArray[Any], ...]) -> torch.Tensor:
    """Stack arrays. A concatenation is leaner than ``np.stack``."""
    return torch.from_numpy(np.concatenate(parts).reshape(len(parts), *parts[0].shape))


def collate_bare(samples: list[Any]) -> dict[str, torch.Tensor]:
    """Collate a batch of two tensors."""
    state, action = zip(*samples, strict=True)
    return {"observation.state": join(state), "action": join(action)}


def collate_whole(samples: list[Any]) -> dict[str, Any]:
    """Collate a batch with the loader's own keys."""
    *arrays, episode, frame, index, task = zip(*samples, strict=True)
    names = ("observation.state", "action", "observation.state_is_pad", "action_is_pad")
    batch: dict[str, Any] = {name: join(part) for name, part in zip(names, arrays, strict=True)}
    numbers = {"episode_index": episode, "frame_index": frame, "index": index}
    return {**batch, **{name: torch.tensor(values) for name, values in numbers.items()}, "task": list(task)}


class WholeTensors(WholeSamples):
    """The same samples as tensors, for PyTorch's own collate."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        state, action, state_is_pad, action_is_pad, episode, frame, index, task = super().__getitem__(i)
        return {
            "observation.state": torch.from_numpy(state),
            "action": torch.from_numpy(action),
            "observation.state_is_pad": torch.from_numpy(state_is_pad),
            "action_is_pad": torch.from_numpy(action_is_pad),
            "episode_index": episode,
            "frame_index": frame,
            "index": index,
            "task": task,
        }


def whole_ways(windows: Windows) -> dict[str, Way]:
    """Return the ways to read samples with every entry of our loader's samples."""
    return {"numpy": (WholeSamples(windows), collate_whole), "default collate": (WholeTensors(windows), None)}


def bare_ways(windows: Windows) -> dict[str, Way]:
    """Return the ways to read only the two windows."""
    return {"numpy": (BareSamples(windows), collate_bare), "default collate": (BareTensors(windows), None)}


def streams(ways: dict[str, Way], num_frames: int, batch_size: int) -> dict[str, Iterator[Any]]:
    """Return endless batches by way and number of workers."""
    batches = np.arange(num_frames // batch_size * batch_size).reshape(-1, batch_size).tolist()
    more: dict[int, dict[str, Any]] = {0: {}, 2: {"persistent_workers": True, "prefetch_factor": 4}}
    return {
        f"{way}, {workers} workers": forever(
            DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers, **options)
        )
        for way, (dataset, collate) in ways.items()
        for workers, options in more.items()
    }
