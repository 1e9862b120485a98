"""Brings a batch to the device; what is not a tensor stays as it is."""

from __future__ import annotations

import torch

from vlapipe.train.policies.base import Batch

__all__ = ["to_device"]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on ``device``; asynchronous if it was pinned, no copy if it is there already."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
