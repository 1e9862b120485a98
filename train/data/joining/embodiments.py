"""Several robots in one training: their states and actions are padded to one size, and each has its own statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.mapped.layout import STATE
from vlapipe.train.data.moments import Moments, padded_moments

__all__ = ["EMBODIMENT", "Embodiment", "padding_masks"]

EMBODIMENT = "embodiment"  # key of a batch: the number of each sample's robot in ``SampleSpec.embodiments``


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """One of several robots: the first ``state`` columns of a state and the first ``action`` columns are its own.

    ``moments`` has the statistics of ``observation.state`` and ``action`` over this robot's training rows. The padded
    columns, which are always 0, count as constant.
    """

    state: int
    action: int
    moments: Mapping[str, Moments] = field(default_factory=dict)

    def with_moments(self, key: str, moments: Moments, size: int) -> Embodiment:
        """Returns the robot with the statistics of a batch key, which are padded to ``size`` columns."""
        own = self.state if key == STATE else self.action
        padded = {**self.moments, key: padded_moments(moments, own, size)}
        return Embodiment(state=self.state, action=self.action, moments=padded)


def padding_masks(embodiments: Sequence[Embodiment], num_state: int, num_action: int) -> dict[str, NDArray[np.bool_]]:
    """Returns which columns of each robot are padding, ``(robots, columns)``, by their key in a batch."""
    own = {
        f"{STATE}_dim_is_pad": (num_state, [each.state for each in embodiments]),
        "action_dim_is_pad": (num_action, [each.action for each in embodiments]),
    }
    return {key: np.arange(size) >= np.array(sizes)[:, None] for key, (size, sizes) in own.items()}
