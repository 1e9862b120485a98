"""How several ranks share a policy: one protocol, so that the loop and the checkpoints name no parallelism.

``Single`` is one process with the whole policy. ``ddp.py`` gives every rank a copy of the policy, ``fsdp.py`` splits
the policy over the ranks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["ReadTensor", "Single", "Strategy", "scale_and_clip"]

ReadTensor = Callable[[str, tuple[slice, ...]], Tensor]  # returns a part of a stored tensor, on the CPU


class Strategy(Protocol):
    """Applies a parallelism from outside. All ranks call each method together."""

    splits_blocks: bool  # whether each block of a policy is a unit of its own

    def wrap(self, module: nn.Module, policy: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
        """Returns ``module`` ready for training; call only its ``forward``.

        ``module`` contains ``policy``. ``blocks`` are the policy's large layers, which may be split one by one.
        """

    def gradient_sync(self, enabled: bool) -> contextlib.AbstractContextManager[None]:
        """Let the block, which holds forward and backward, average the gradients over the ranks if ``enabled``."""

    def clip(self, parameters: Iterable[Tensor], max_norm: float, factor: Tensor) -> Tensor:
        """Multiply the gradients of ``parameters`` by ``factor``, then clip the norm to ``max_norm`` (0: not).

        Returns the norm before clipping: a scalar on the device, equal on all ranks.
        """

    def mean(self, scalars: Tensor) -> Tensor:
        """Returns the mean of ``scalars`` (K,) over the ranks, on the device."""

    def for_optimizer(self, flag: Tensor) -> Tensor:
        """Returns ``flag``, a scalar that is equal on all ranks, as a tensor of the kind of the parameters."""

    def full_state(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns copies, on the CPU, of the whole tensors that this rank has to save.

        Over all ranks, each name occurs once. Training may go on while the copies are written.
        """

    def load_state(self, named: Mapping[str, Tensor], read: ReadTensor) -> None:
        """Copy stored values into the tensors ``named``. Only the part that this rank holds is read."""

    def close(self) -> None:
        """Drop what keeps the process groups alive. The module cannot be called afterwards."""


class Single:
    """One process that has the whole policy."""

    splits_blocks = False

    def wrap(self, module: nn.Module, policy: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:  # noqa: ARG002
        """Returns ``module`` itself."""
        return module

    def gradient_sync(self, enabled: bool) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Returns a context that does nothing."""
        return contextlib.nullcontext()

    def clip(self, parameters: Iterable[Tensor], max_norm: float, factor: Tensor) -> Tensor:
        """Multiply the gradients by ``factor``, then clip their norm to ``max_norm``. Returns the norm before."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        return scale_and_clip(gradients, torch.nn.utils.get_total_norm(gradients), max_norm, factor)

    def mean(self, scalars: Tensor) -> Tensor:
        """Returns ``scalars``."""
        return scalars

    def for_optimizer(self, flag: Tensor) -> Tensor:
        """Returns ``flag``."""
        return flag

    def full_state(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns a copy of every tensor."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}

    def load_state(self, named: Mapping[str, Tensor], read: ReadTensor) -> None:
        """Copy the stored values into the tensors."""
        with torch.no_grad():
            for name, tensor in named.items():
                tensor.copy_(read(name, (slice(None),) * tensor.dim()))

    def close(self) -> None:
        """Do nothing."""


def scale_and_clip(gradients: list[Tensor], norm: Tensor, max_norm: float, factor: Tensor) -> Tensor:
    """Multiply ``gradients``, whose norm is ``norm``, by ``factor``, and then clip. Returns the norm in between.

    One multiplication does both, and nothing waits for the device.
    """
    norm = norm * factor.to(norm.dtype)
    if gradients:
        scale = factor * (max_norm / (norm + 1e-6)).clamp(max=1.0) if max_norm else factor
        for dtype in {gradient.dtype for gradient in gradients}:
            torch._foreach_mul_([g for g in gradients if g.dtype == dtype], scale.to(dtype))
    return norm
