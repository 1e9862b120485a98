"""Gradient checkpointing: backward computes the activations of each block again, instead of keeping them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from vlapipe.schemas.errors import UsageError

__all__ = ["recompute_in_backward"]


def recompute_in_backward(policy: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """Make each block recompute its activations. Random numbers, such as those of dropout, are the same both times.

    Raises:
        UsageError: the policy names no blocks.
    """
    if not blocks:
        cure = "leave --gradient-checkpointing away, or give the policy a method blocks() that returns its large layers"
        raise UsageError(f"policy {type(policy).__name__} does not do gradient checkpointing", cure)
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
