"""The policy ``regression``: predicts the next H actions from images, state, sensors and the instruction at once.

Shape letters: B batch, H action horizon, A action size.
"""

from __future__ import annotations

from typing import Unpack

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.train.data.arguments import parse_choice
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.policies.actions import targets_of
from vlapipe.train.policies.base import LossOutput
from vlapipe.train.policies.built_in import BuiltInPolicy, Sizes

__all__ = ["RegressionPolicy"]

_LOSSES = ("l1", "huber", "mse")
_HUBER = 0.1  # normalized error up to which the Huber loss is quadratic


class RegressionPolicy(BuiltInPolicy):
    """One layer reads all H actions out of the vector that the observation gives.

    The loss is the mean error of normalized actions: absolute (``l1``), squared (``mse``), or ``huber``, which is
    quadratic up to 0.1. Actions are in standard deviations of each column unless the run normalizes them in another
    way. A policy that always predicts the mean then has an absolute loss of about 0.8. The loss leaves out columns that
    are constant in the training data, or that only flicker. For these columns the policy returns the constant.

    Where the recordings do two things in one situation, this policy does the middle of both; ``flow`` does one.
    """

    def __init__(self, spec: SampleSpec, *, loss: str = "l1", **sizes: Unpack[Sizes]) -> None:
        """Build the layers. ``loss`` is ``l1``, ``huber`` or ``mse``."""
        super().__init__(spec, **sizes)
        self._loss = parse_choice("policy_args loss", loss, _LOSSES)
        H, A = spec.action
        self.head = nn.Linear(self.dim, H * A)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def loss(self, batch: Batch) -> LossOutput:
        """Returns the error of normalized actions, without padded actions and constant columns.

        Targets that are not finite are left out too.
        """
        predicted = self.normalized_actions(batch).float()
        target, counts = targets_of(self.action_normalizer, batch)
        if self._loss == "l1":
            error = (predicted - target).abs()
        elif self._loss == "mse":
            error = (predicted - target).square()
        else:
            error = F.smooth_l1_loss(predicted, target, reduction="none", beta=_HUBER)
        return LossOutput.masked(error, counts)

    def normalized_actions(self, batch: Batch) -> Tensor:
        """Returns normalized actions ``(B, H, A)``."""
        actions: Tensor = self.head(self.context(batch)).unflatten(1, self._spec.action)
        return actions
