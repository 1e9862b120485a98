"""Reduces gradients over the ranks with DDP: averages the gradient of each parameter that any rank's loss reaches.

DDP looks in every step for parameters that the loss does not reach (``find_unused_parameters``). Otherwise DDP would
wait for their gradients, and a rank could step with a gradient that differs from the other ranks.
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
    """Wrap ``module``, which contains ``policy``, in DDP. Every rank then begins with rank 0's weights.

    With one rank, the function returns ``module`` unchanged. A parameter that no rank's loss reaches in a step has no
    gradient in that step, as with one rank.

    Raises:
        UsageError: the ranks built different policies.
    """
    if ranks.world_size == 1:
        return module
    require_same_policy(policy, ranks)
    # DDP warns on every rank if it looks for unused parameters and finds none. This parameter is always unused.
    module.register_parameter("never_reached", nn.Parameter(torch.zeros((), device=ranks.device)))
    device_ids = [ranks.device.index] if ranks.device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        module, device_ids=device_ids, gradient_as_bucket_view=True, find_unused_parameters=True
    )
    wrapped.broadcast_buffers = False  # DDP's constructor has broadcast the buffers; do not repeat it in every forward
    return wrapped


@contextlib.contextmanager
def unless(exchanges: bool, module: nn.Module) -> Iterator[None]:
    """Suppress the reduce of gradients in the block, unless ``exchanges`` is True.

    The block must contain forward and backward, because DDP decides in forward whether this pass reduces gradients.
    """
    if isinstance(module, DistributedDataParallel) and not exchanges:
        with module.no_sync():
            yield
    else:
        yield


def require_same_policy(policy: nn.Module, ranks: Ranks) -> None:
    """Compare the policies of all ranks by name, dtype and shape of each tensor; a collective.

    Every rank compares the same texts, so every rank comes to the same result.

    Raises:
        UsageError: a rank's policy differs from rank 0's policy.
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
