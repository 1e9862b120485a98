"""EMA: an exponential moving average of the trained parameters, for validation, export and the checkpoint.

The average has its own tensors on the policy's device, sharded as the policy is. An update makes no device sync. The
decay is a pure function of the step, so the averages are all that a checkpoint needs. Frozen parameters and buffers
have no average; the policy's own values are used for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["EMA"]


class EMA:
    """Averages of the parameters of ``policy`` that are trained. They begin with the policy's present weights."""

    def __init__(self, policy: nn.Module, *, decay: float, warmup: bool = True) -> None:
        """Copy the trained parameters.

        Args:
            policy: the policy that the optimizer moves.
            decay: weight of the old average in an update.
            warmup: begin with a smaller decay, see ``decay_at``.
        """
        self.decay, self.warmup, self._policy = decay, warmup, policy
        trained = [p for p in policy.parameters() if p.requires_grad]
        # bf16 cannot hold an average: a change below 1/256 of a value would be rounded away.
        self._average_of = {p: p.detach().to(_average_dtype(p), copy=True) for p in trained}
        # A tied parameter has several names, and a state_dict has all of them.
        self._names = {name: p for name, p in policy.named_parameters(remove_duplicate=False) if p in self._average_of}

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the policy's present weights."""
        for p, average in self._average_of.items():
            average.copy_(p)

    def decay_at(self, step: int) -> float:
        """Returns the decay of the update after ``step`` (from 0), as TensorFlow's ExponentialMovingAverage.

        With the warm-up, the decay is at most (1 + step) / (10 + step). Without it, the initial weights would still
        have a share of 37 % after 1000 steps of a decay of 0.999.
        """
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, step: int, moved: Tensor | None = None) -> None:
        """Move the averages towards the weights that ``step`` (from 0) made.

        ``moved`` is a scalar on the policy's device. If it is 0, the averages stay exactly as they are.
        """
        pairs = [(_local(average), _local(p)) for p, average in self._average_of.items()]
        weight = 1.0 - self.decay_at(step)
        same = [(average, p) for average, p in pairs if average.dtype == p.dtype]
        if same:
            averages, weights = (list(tensors) for tensors in zip(*same, strict=True))
            if moved is None:
                torch._foreach_lerp_(averages, weights, weight)
            else:
                by_dtype = {a.dtype: (moved * weight).to(a.dtype) for a in averages}
                torch._foreach_lerp_(averages, weights, [by_dtype[a.dtype] for a in averages])
        for average, p in pairs:
            if average.dtype != p.dtype:
                share = torch.tensor(weight) if moved is None else moved * weight
                average.lerp_(p.to(average.dtype), share.to(average))

    def named_tensors(self) -> dict[str, Tensor]:
        """Returns the averages by the names that the policy's ``state_dict`` has for them. Tensors are not copied."""
        return {name: self._average_of[p] for name, p in self._names.items()}

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages into the policy for the duration of the block, then restore its weights exactly.

        ``named_tensors`` must not be used in the block.
        """
        rounded = {p: p.detach().clone() for p, average in self._average_of.items() if average.dtype != p.dtype}
        self._exchange(rounded=None)
        try:
            yield
        finally:
            self._exchange(rounded=rounded)

    @torch.no_grad()
    def _exchange(self, rounded: dict[nn.Parameter, Tensor] | None) -> None:
        """Exchange weights and averages. ``rounded`` holds the weights that are less precise than their averages.

        Values are copied, not tensors: DDP, FSDP and CUDA graphs rely on the addresses.
        """
        # FSDP may leave gathered copies in the policy after a forward. They would not see the exchange.
        assert self._average_of.keys() <= set(self._policy.parameters()), "parameters are gathered; reshard them first"
        for p, average in self._average_of.items():
            if average.dtype == p.dtype:
                held = p.detach().clone()
                p.copy_(average)
                average.copy_(held)
            else:
                p.copy_(average if rounded is None else rounded[p])


def _average_dtype(parameter: Tensor) -> torch.dtype:
    return torch.float32 if parameter.dtype in (torch.bfloat16, torch.float16) else parameter.dtype


def _local(tensor: Tensor) -> Tensor:
    """Returns this rank's shard of a DTensor, without a copy; another tensor unchanged."""
    to_local = getattr(tensor, "to_local", None)
    local: Tensor = tensor.detach() if to_local is None else to_local().detach()
    return local
