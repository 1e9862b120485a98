"""Checks that all ranks built the same policy, before they exchange its tensors."""

from __future__ import annotations

from itertools import zip_longest

from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.parallel.ranks import Ranks, agree, gather_bytes

__all__ = ["require_same_policy"]


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
