"""The arithmetic of a policy: floating-point operations of the forward pass for each sample, counted without data."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Batch, SampleSpec, batch_entries
from vlapipe.train.policies.base import prepared
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
    """Count what one more sample adds to ``policy.loss`` of a batch: matrix products, convolutions and attention.

    What the samples share does not count, such as an instruction that is encoded once for all that have it.

    The weights are on torch's meta device, and so is all that follows from them: nothing of it is computed. The samples
    are real, and all zeros. So ``loss`` may look into tensors that no weight has touched, such as places of tokens.
    """
    module = LossOf(policy)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    weights = {name for name, tensor in tensors.items() if tensor.is_floating_point()}
    on_meta = {name: torch.empty_like(tensors[name], device="meta") for name in weights}
    device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
    one, two = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for counter, num_samples in ((one, 1), (two, 2)):
            batch = prepared(policy, _zeros(spec, device, num_samples))
            with counter, _WeightsOnMeta(device):
                functional_call(module, on_meta, (batch,))
    return two.get_total_flops() - one.get_total_flops()


class _WeightsOnMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets tensors on the meta device meet real ones. The result is on meta; all else stays real, on ``device``."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if any(tensor.is_meta for tensor in tensors):
            args, kwargs = tree_map(lambda each: each.to("meta") if isinstance(each, Tensor) else each, (args, kwargs))
            if "device" in kwargs:
                kwargs["device"] = torch.device("meta")
        elif "device" in kwargs:  # a new tensor, or a copy beside one on meta
            kwargs["device"] = self._device
        return func(*args, **kwargs)


def _zeros(spec: SampleSpec, device: torch.device, num_samples: int) -> Batch:
    batch: Batch = {"task": ["a task"] * num_samples}
    for key, entry in batch_entries(spec).items():
        dtype = torch.from_numpy(np.empty(0, entry.dtype)).dtype
        value = torch.zeros((num_samples, *entry.shape), dtype=dtype, device=device)
        is_image = key.startswith("observation.images.") and not key.endswith("_is_pad")
        batch[key] = value.movedim(-1, 2) if is_image else value
    return batch
