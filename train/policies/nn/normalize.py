"""Normalizes with mean and standard deviation. Both are buffers, so a checkpoint contains the statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import Moments

__all__ = ["Normalizer"]

_RELATIVE_FLOOR = 1e-6  # a float32 column with a smaller std, relative to its mean, varies only by rounding
_ABSOLUTE_FLOOR = 1e-10


class Normalizer(nn.Module):
    """Subtracts the mean of each column and divides by its standard deviation.

    A constant column is only centred, and ``invert`` returns its constant. Statistics of shape ``(1,)`` broadcast to
    any width. Without statistics, finite values stay unchanged. A value that is not finite becomes 0, so that it cannot
    spread to the weights.
    """

    mean: Tensor
    std: Tensor
    varies: Tensor  # bool: True for a column that is not constant

    def __init__(self, moments: Moments | None, *, limit: float | None = None) -> None:
        """Store the statistics. ``limit`` clips normalized values to +-limit, so a sensor's spike cannot dominate."""
        super().__init__()
        self.limit = limit
        mean = torch.zeros(1) if moments is None else torch.as_tensor(moments.mean, dtype=torch.float32).clone()
        std = torch.ones(1) if moments is None else torch.as_tensor(moments.std, dtype=torch.float32).clone()
        varies = std > (mean.abs() * _RELATIVE_FLOOR).clamp_min(_ABSOLUTE_FLOOR)
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(varies, std, torch.zeros_like(std)))
        self.register_buffer("varies", varies)

    def forward(self, values: Tensor) -> Tensor:
        """Returns normalized values, in standard deviations. All of them are finite."""
        scaled = (values - self.mean) / torch.where(self.varies, self.std, torch.ones_like(self.std))
        scaled = scaled.where(values.isfinite(), torch.zeros((), dtype=scaled.dtype, device=scaled.device))
        return scaled if self.limit is None else scaled.clamp(-self.limit, self.limit)

    def invert(self, scaled: Tensor) -> Tensor:
        """Returns values in the dataset's units. A constant column gets exactly its mean."""
        return scaled * self.std + self.mean
