"""Shares gradients between ranks through DDP: what any rank's loss has reached is averaged over all of them.

DDP is told to look for parameters that a loss does not reach, in each step anew: it would otherwise wait for their
gradients, and a rank could step by a gradient of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlapipe.schemas.errors import UsageError
from vlapipe.train.parallel.ranks import Ranks, agree, gather_bytes

__all__ = ["require_same_policy", "unless", "wrap"]


def wrap(module: nn.Module, policy: nn.Module, ranks: Ranks) -> nn.Module:
    """``module``, around ``policy``, as one of ``world_size`` copies that begin with rank 0's weights.

    A parameter that no rank's loss reaches in a step keeps no gradient, as with one rank.

    Raises:
        UsageError: the ranks built different policies.
    """
    if ranks.world_size == 1:
        return module
    require_same_policy(policy, ranks)
    # DDP warns on every rank if it looks for unreached parameters and finds none; it always finds this one.
    module.register_parameter("never_reached", nn.Parameter(torch.zeros((), device=ranks.device)))
    device_ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        module, device_ids=device_ids, gradient_as_bucket_view=True, find_unused_parameters=True
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


def require_same_policy(policy: nn.Module, ranks: Ranks) -> None:
    """Compare what every rank has built, tensor by tensor; a collective, in which every rank finds the same.

    Raises:
        UsageError: one differs from rank 0.
    """
    lines = []
    for name, parameter in policy.named_parameters():
        lines.append(f"parameter {_described(name, parameter)}{'' if parameter.requires_grad else ', frozen'}")
    lines += [f"buffer {_described(name, buffer)}" for name, buffer in policy.named_buffers()]
    first, *others = [text.decode().split("\n") for text in gather_bytes("\n".join(lines).encode(), ranks)]
    with agree(ranks):
        for rank, other in enumerate(others, start=1):
            if other != first:
                a, b = next((a, b) for a, b in zip_longest(first, other, fillvalue="nothing more") if a != b)
                raise UsageError(
                    f"the ranks built different policies: rank 0 has {a}, rank {rank} has {b}",
                    "build the policy from its arguments alone, the same on every rank",
                )


def _described(name: str, tensor: Tensor) -> str:
    return f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
