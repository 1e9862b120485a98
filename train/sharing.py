"""Shares gradients between ranks: the first step by hand, which shows what the loss reaches, the others through DDP.

DDP waits for the gradient of every parameter, so a layer that the loss does not use would halt it; told to look for
such layers it walks the whole graph in every step. Which of the two a policy needs is known after its first step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vlapipe.schemas.errors import UsageError
from vlapipe.train.distributed import Ranks, mean_of

__all__ = ["explain_unused", "share_first_gradients", "unless", "wrap"]


def wrap(module: nn.Module, ranks: Ranks, *, find_unused: bool = False) -> nn.Module:
    """``module`` as one of ``world_size`` copies that begin with rank 0's weights and share their gradients.

    Raises:
        UsageError: the ranks built policies of different sizes.
    """
    if ranks.world_size == 1:
        return module
    count = sum(p.numel() for p in module.parameters())
    mean, mean_square = mean_of([count, count**2], ranks)
    if mean_square != mean**2:
        cure = "build the policy from its arguments alone, the same on every rank"
        raise UsageError(f"the ranks built different policies: rank {ranks.rank} has {count} parameters", cure)
    device_ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        module, device_ids=device_ids, gradient_as_bucket_view=True, find_unused_parameters=find_unused
    )
    wrapped.broadcast_buffers = False  # sent once above; not again in every forward
    return wrapped


@contextlib.contextmanager
def unless(exchanges: bool, module: nn.Module) -> Iterator[None]:
    """Hold back the exchange of gradients, unless this pass is one to ``exchange`` in.

    It has to surround forward and backward: DDP decides in forward whether this pass will exchange.
    """
    if isinstance(module, DistributedDataParallel) and not exchanges:
        with module.no_sync():
            yield
    else:
        yield


def share_first_gradients(module: nn.Module, ranks: Ranks) -> nn.Module:
    """Average the gradients of a step that was made without exchange; gives the module to make the others with.

    A collective. A parameter that no rank's loss reached has no gradient afterwards, as with one rank.
    """
    if not isinstance(module, DistributedDataParallel):
        return module
    parameters = [p for p in module.parameters() if p.requires_grad]
    reached_by = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int64, device=ranks.device)
    dist.all_reduce(reached_by)
    for parameter, count in zip(parameters, reached_by.tolist(), strict=True):
        if count:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradient /= ranks.world_size
            dist.all_reduce(gradient)
            parameter.grad = gradient
    if bool((reached_by == ranks.world_size).all()):
        return module
    return wrap(module.module, ranks, find_unused=True)


@contextlib.contextmanager
def explain_unused(policy_name: str) -> Iterator[None]:
    """Turn DDP's complaint about a layer that was used in the first step and not in a later one into one line.

    Raises:
        UsageError: that was the complaint.
    """
    try:
        yield
    except RuntimeError as error:
        if "Expected to have finished reduction in the prior iteration" not in str(error):
            raise
        cure = "let every loss depend on all of them, if only by adding 0 * parameter.sum()"
        raise UsageError(
            f"policy {policy_name}: its loss reaches all parameters in some steps and not in others, "
            "which several ranks cannot share",
            cure,
        ) from error
