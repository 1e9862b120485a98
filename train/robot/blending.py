"""Keeps the action chunks that still count, and gives the action of each step: one chunk's, or a mean of several.

The mean is the temporal ensemble of ACT (Zhao et al. 2023, arXiv 2304.13705): of N chunks that have an action for a
step, the i-th oldest has weight ``exp(-m i)``, i from 0. Shape letters: H action horizon, A action size, N chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.data.description import NamedField

__all__ = ["ActionQueue"]

_Floats = NDArray[np.float32]


class ActionQueue:
    """The chunks of a policy by the step at which each begins."""

    def __init__(self, execute: int, ensemble: float | None, fields: Sequence[NamedField]) -> None:
        """Begin without a chunk.

        Args:
            execute: number of actions that are used before the next chunk is needed.
            ensemble: m, or None to use the newest chunk alone.
            fields: those of a recorded action, if known: angles are averaged within half a turn of the newest one, and
                a quaternion is brought to the newest one's sign and to length 1.
        """
        self._execute, self._ensemble = execute, ensemble
        self._chunks: deque[tuple[int, _Floats]] = deque()
        self._step = 0
        self._period = np.array([p for f in fields for p in f.period or (0.0,) * f.num_columns])
        self._turns = np.where(self._period > 0, self._period, 1.0)
        firsts = np.cumsum([0, *(field.num_columns for field in fields)]).tolist()
        self._quaternions = [
            slice(first, first + 4) for first, f in zip(firsts, fields, strict=False) if f.is_quaternion
        ]

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()
        self._step = 0

    @property
    def needs_chunk(self) -> bool:
        """Whether the next step needs a new chunk."""
        return not self._chunks or self._step - self._chunks[-1][0] >= self._execute

    def add(self, chunk: _Floats) -> None:
        """Add the chunk ``(H, A)`` that begins with the next step."""
        if self._ensemble is None:
            self._chunks.clear()
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= self._step:
            self._chunks.popleft()
        self._chunks.append((self._step, chunk))

    def next(self) -> _Floats:
        """Returns the action ``(A,)`` of the next step, which is the caller's."""
        of_step = [chunk[self._step - begin] for begin, chunk in self._chunks if self._step - begin < len(chunk)]
        self._step += 1
        return of_step[-1].copy() if len(of_step) == 1 else self._mean(np.stack(of_step))

    def _mean(self, actions: _Floats) -> _Floats:
        """Returns the weighted mean of actions ``(N, A)``, the oldest first."""
        assert self._ensemble is not None
        weights = np.exp(-self._ensemble * np.arange(len(actions)))
        weights /= weights.sum()
        values, newest = actions.astype(np.float64), actions[-1].astype(np.float64)
        if self._period.any():
            values -= self._period * np.rint((values - newest) / self._turns)
        for four in self._quaternions:
            signs = np.sign(values[:, four] @ newest[four])
            values[:, four] *= np.where(signs == 0, 1, signs)[:, None]
        mean = weights @ values
        for four in self._quaternions:
            mean[four] /= max(float(np.linalg.norm(mean[four])), 1e-12)
        found: _Floats = mean.astype(np.float32)
        return found
