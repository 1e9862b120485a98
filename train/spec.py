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
    """Mean and standard deviation of one entry, over the train split.

    ``mean`` and ``std`` are float32 and either of the entry's last dimension or of shape ``(1,)``
    (entries wider than 64 are summarised by one number each). A constant column has std 0.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """Shapes of one sample, without the batch dimension, and the statistics to normalize with."""

    state: tuple[int, int]  # (T, D) float32 of "observation.state"
    sensors: dict[str, tuple[int, ...]] = field(default_factory=dict)  # name -> (T, ...) float32
    images: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # view -> (T, 3, height, width) uint8
    action: tuple[int, int] = (0, 0)  # (H, A) float32 of "action"
    moments: dict[str, Moments] = field(default_factory=dict)  # batch key -> statistics
