"""Mean and standard deviation as buffers, so that a policy carries its statistics wherever its checkpoint goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import Moments

__all__ = ["Normalizer"]

_RELATIVE_FLOOR = 1e-6  # a float32 column that varies by less, relative to its mean, holds rounding and nothing else
_ABSOLUTE_FLOOR = 1e-10


class Normalizer(nn.Module):
    """Centres and scales each number of a row; a constant column is only centred, and comes back as its constant.

    Statistics of shape ``(1,)`` serve an entry of any width. Without statistics it leaves values as they are. A value
    that is no finite number becomes 0, as the mean does: it must not spread to every weight.
    """

    mean: Tensor
    std: Tensor
    varies: Tensor  # bool: not constant

    def __init__(self, moments: Moments | None, *, limit: float | None = None) -> None:
        """Args: ``limit`` clips normalized values to +-limit, so that one spike of a sensor cannot drown the rest."""
        super().__init__()
        self.limit = limit
        mean = torch.zeros(1) if moments is None else torch.as_tensor(moments.mean, dtype=torch.float32).clone()
        std = torch.ones(1) if moments is None else torch.as_tensor(moments.std, dtype=torch.float32).clone()
        varies = std > (mean.abs() * _RELATIVE_FLOOR).clamp_min(_ABSOLUTE_FLOOR)
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(varies, std, torch.zeros_like(std)))
        self.register_buffer("varies", varies)

    def forward(self, values: Tensor) -> Tensor:
        """Values in units of standard deviations, all of them finite."""
        scaled = (values - self.mean) / torch.where(self.varies, self.std, torch.ones_like(self.std))
        scaled = scaled.where(values.isfinite(), torch.zeros((), dtype=scaled.dtype, device=scaled.device))
        return scaled if self.limit is None else scaled.clamp(-self.limit, self.limit)

    def invert(self, scaled: Tensor) -> Tensor:
        """Values in the dataset's units; exactly the mean where the column is constant."""
        return scaled * self.std + self.mean
