"""DDP: every rank has a copy of the policy, and backward averages the gradients over the ranks.

By default, DDP looks in every step for parameters that the loss of no rank reaches. A policy that always reaches the
same parameters needs no search (``unused_parameters``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlapipe.train.parallel.ranks import Ranks
from vlapipe.train.parallel.same_policy import require_same_policy
from vlapipe.train.parallel.strategy import Single

__all__ = ["Replicated"]


class Replicated(Single):
    """Every rank has a copy of the policy. All ranks begin with rank 0's weights.

    A parameter that no rank's loss reaches in a step has no gradient in that step, as with one rank.
    """

    def __init__(self, ranks: Ranks, *, unused_parameters: str = "search") -> None:
        """``unused_parameters``: ``search`` in every step, ``static`` (the same in every step), or ``none``."""
        self._ranks, self._unused = ranks, unused_parameters
        self._wrapped: DistributedDataParallel | None = None

    def wrap(self, module: nn.Module, policy: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:  # noqa: ARG002
        """Wrap ``module`` in DDP.

        Raises:
            UsageError: the ranks built different policies.
        """
        require_same_policy(policy, self._ranks)
        if self._unused == "search":
            # DDP warns on every rank if it looks for unused parameters and finds none. This one is always unused.
            like = next(policy.parameters())
            module.register_parameter(
                "never_reached", nn.Parameter(torch.zeros((), device=like.device, dtype=like.dtype))
            )
        self._wrapped = DistributedDataParallel(
            module,
            device_ids=[self._ranks.device.index] if self._ranks.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            find_unused_parameters=self._unused == "search",
            static_graph=self._unused == "static",
        )
        self._wrapped.broadcast_buffers = False  # the constructor has broadcast them; not again in every forward
        return self._wrapped

    def gradient_sync(self, enabled: bool) -> contextlib.AbstractContextManager[None]:
        """Let only the last pass of a step reduce the gradients; DDP decides that in forward."""
        assert self._wrapped is not None
        return contextlib.nullcontext() if enabled else self._wrapped.no_sync()

    def mean(self, scalars: Tensor) -> Tensor:
        """Returns the mean of ``scalars`` over the ranks."""
        return mean_over_ranks(scalars)

    def full_state(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns a copy of every tensor on rank 0, and nothing on the other ranks."""
        return super().full_state(named) if self._ranks.is_first else {}

    def close(self) -> None:
        """Drop the wrapped module, which keeps the group of the gradients alive."""
        self._wrapped = None


def mean_over_ranks(scalars: Tensor) -> Tensor:
    """Returns the mean of ``scalars`` over the ranks: one reduce over the group of the gradients."""
    total = scalars.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
