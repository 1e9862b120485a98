"""The interface of a policy: an ``nn.Module`` with ``loss(batch)`` and ``act(observation)``.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import Batch

__all__ = ["Batch", "Policy", "masked_mean"]


class Policy(nn.Module, ABC):
    """Base class of the built-in policies. Your own policy may be any ``nn.Module`` with these methods.

    The trainer calls the constructor as ``Class(spec, **policy_args)`` with a ``SampleSpec``. If the user gives
    ``--gradient-checkpointing``, the constructor also gets ``gradient_checkpointing=True``. A checkpoint saves only
    parameters and buffers, so store the statistics of normalization in buffers too.
    """

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Returns the mean loss, a scalar, over the entries of ``action`` (B, H, A) where ``action_is_pad`` is False.

        ``action_is_pad`` has shape ``(B, H)``.
        """

    @abstractmethod
    def act(self, observation: Batch) -> Tensor:
        """Returns the action chunk ``(B, H, A)`` in the dataset's units. The batch may lack the ``action`` keys."""

    def forward(self, batch: Batch) -> Tensor:
        """Returns ``loss(batch)``."""
        return self.loss(batch)


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Returns the mean of ``values`` where ``weight`` (broadcast to ``values``) is not 0; 0 if ``weight`` is all 0."""
    weight = weight.to(values.dtype).expand_as(values)
    # A padded entry may be infinite, and 0 * infinity is NaN.
    kept = torch.where(weight > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return (kept * weight).sum() / weight.sum().clamp_min(1.0)
