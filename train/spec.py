"""What one training batch holds, so that a policy can be built before the first batch is read.

Shape letters: B batch, T rows of a window, H action horizon, A action size, D state size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments", "SampleSpec"]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and standard deviation of one entry, over the finite values of the train split.

    ``mean`` and ``std`` are float32 and either of the shape of one row of the entry or of shape ``(1,)``: a field of
    more than 64 numbers a row is summarised by one number, which in a state beside other fields stands for each of
    its columns. A constant column has std 0. Unless ``is_finite`` the schema let values through that are no finite
    numbers, and a batch holds them as they are.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    is_finite: bool = True


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """Shapes of one sample, without the batch dimension, and the statistics to normalize with."""

    state: tuple[int, int]  # (T, D) float32 of "observation.state"
    sensors: dict[str, tuple[int, ...]] = field(default_factory=dict)  # name -> (T, ...) float32
    images: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # view -> (T, 3, height, width) uint8
    action: tuple[int, int] = (0, 0)  # (H, A) float32 of "action"
    moments: dict[str, Moments] = field(default_factory=dict)  # batch key -> statistics
