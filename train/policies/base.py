"""What the trainer asks of a policy: an ``nn.Module`` with ``loss(batch)`` and ``act(observation)``, nothing else.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import Batch

__all__ = ["Batch", "Policy", "masked_mean"]


class Policy(nn.Module, ABC):
    """Base of the built-in policies, and a convenient one for yours; any ``nn.Module`` with these methods will do.

    The constructor is called as ``Class(spec, **policy_args)`` with a ``SampleSpec``. If it takes a keyword
    ``gradient_checkpointing``, ``--gradient-checkpointing`` reaches it there. What must survive in a checkpoint, the
    statistics of normalization too, is held in parameters and buffers.
    """

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Mean loss, a scalar, over the entries of ``action`` (B, H, A) that ``action_is_pad`` (B, H) leaves in."""

    @abstractmethod
    def act(self, observation: Batch) -> Tensor:
        """The action chunk ``(B, H, A)`` in the dataset's units, for a batch that may lack the ``action`` keys."""

    def forward(self, batch: Batch) -> Tensor:
        """The same as ``loss``."""
        return self.loss(batch)


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` where ``weight``, which broadcasts to it, is not 0; exactly 0 if it is 0 everywhere."""
    weight = weight.to(values.dtype).expand_as(values)
    # A padded entry may hold anything, even infinity, which 0 * would turn into NaN.
    kept = torch.where(weight > 0, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return (kept * weight).sum() / weight.sum().clamp_min(1.0)
