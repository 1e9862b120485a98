"""The arithmetic of a policy: floating-point operations of the forward pass of one sample, counted without data."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Batch, SampleSpec, batch_entries
from vlapipe.train.policies.loss_module import LossOf

__all__ = ["count_forward_flops", "flops_of"]


def flops_of(policy: nn.Module) -> float | None:
    """Returns what the policy's method ``flops_per_sample`` says; None if the policy has no such method.

    Raises:
        UsageError: the method does not return a positive number.
    """
    method = getattr(policy, "flops_per_sample", None)
    if not inspect.ismethod(method):
        return None
    flops: Any = method()
    if flops is not None and not (isinstance(flops, int | float) and 0 < flops < math.inf):
        problem = f"policy {type(policy).__name__}: flops_per_sample(): expected a positive number, found {flops!r}"
        raise UsageError(problem, "return the operations of one sample's forward pass, or None")
    return flops


def count_forward_flops(policy: nn.Module, spec: SampleSpec) -> int:
    """Count the operations of ``policy.loss`` for one sample: matrix products, convolutions and attention.

    Nothing is computed and no memory is taken: the tensors of the policy and of the sample are on torch's meta device.
    """
    module = LossOf(policy)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    on_meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(module, on_meta, (_meta_batch(spec),))
    return counter.get_total_flops()


def _meta_batch(spec: SampleSpec) -> Batch:
    batch: Batch = {"task": ["a task"]}
    for key, entry in batch_entries(spec).items():
        value = torch.empty((1, *entry.shape), dtype=torch.from_numpy(np.empty(0, entry.dtype)).dtype, device="meta")
        is_image = key.startswith("observation.images.") and not key.endswith("_is_pad")
        batch[key] = value.movedim(-1, 2) if is_image else value
    return batch
