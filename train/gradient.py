"""Makes the gradient of a step the same however its samples are divided into batches and over ranks.

Each batch's loss is a mean over its actions that are not padded. To weigh every action alike, a batch's loss is
multiplied by the share of its actions that are kept, and the summed gradient is divided by the mean of those shares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlapipe.train.policies.base import Batch

__all__ = ["kept_share", "rescale_and_clip"]


def kept_share(batch: Batch) -> Tensor:
    """Share of the batch's actions that are not padded; a scalar where the batch is, which nobody waits for."""
    share: Tensor = (~batch["action_is_pad"]).float().mean()
    return share


def rescale_and_clip(module: nn.Module, mean_share: float, max_norm: float) -> Tensor:
    """Divide the gradients by ``mean_share``, then shorten them to ``max_norm`` (0: do not); the norm in between."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if gradients and mean_share > 0:
        torch._foreach_mul_(gradients, 1.0 / mean_share)
    return torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm or float("inf"))
