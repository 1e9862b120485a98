"""Begins a policy with the weights of another run: tensors that fit by name and shape are copied.

Statistics of ``Normalizer`` are not copied, because they describe the data of the other run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.files import open_checkpoint
from vlapipe.train.checkpoint.saved_policy import chosen_checkpoint, saved_weights
from vlapipe.train.policies.nn.normalize import Normalizer

__all__ = ["Fit", "arguments_of", "copy_what_fits", "init_policy"]

_NAMED = 3  # maximum number of tensors that the line names of each kind; the line counts the others


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What of another run's weights fitted a policy. Names are those of the ``state_dict``."""

    copied: tuple[str, ...]
    other_shape: tuple[str, ...]  # with both shapes
    only_here: tuple[str, ...]  # initialized as in a run without --init
    only_there: tuple[str, ...]
    own_statistics: tuple[str, ...]  # buffers of normalizers: of the new data

    @property
    def line(self) -> str:
        """One line for the console: counts and the first names."""
        num_here = len(self.copied) + len(self.other_shape) + len(self.only_here)
        parts = [f"{len(self.copied)} of {num_here} tensors fit"]
        parts += [f"{len(self.other_shape)} of another shape: {_first(self.other_shape)}"] if self.other_shape else []
        parts += [f"{len(self.only_here)} only here: {_first(self.only_here)}"] if self.only_here else []
        parts += [f"{len(self.only_there)} only there: {_first(self.only_there)}"] if self.only_there else []
        parts += ["statistics are those of the new data"] if self.own_statistics else []
        return "; ".join(parts)


def init_policy(policy: nn.Module, path: Path) -> str:
    """Begin ``policy`` with the weights of a run or a checkpoint. Returns a line that says what fitted.

    Raises:
        UsageError: there is no checkpoint, or no parameter fits.
        DamageError: the checkpoint is incomplete or altered.
    """
    folder = chosen_checkpoint(path)
    weights, _ = saved_weights(folder)
    return f"init from {folder}: {copy_what_fits(policy, weights, where=str(path)).line}"


def arguments_of(path: Path) -> dict[str, Any]:
    """Returns the ``policy_args`` of a run or a checkpoint. The errors are those of ``init_policy``."""
    found: dict[str, Any] = dict(open_checkpoint(chosen_checkpoint(path)).state["config"]["policy_args"])
    return found


@torch.no_grad()
def copy_what_fits(policy: nn.Module, weights: Mapping[str, Tensor], *, where: str) -> Fit:
    """Copy the tensors of ``weights`` that the policy has by the same name and shape. ``where`` is for the message.

    Raises:
        UsageError: no parameter fits.
    """
    statistics = {
        f"{name}.{buffer}" if name else buffer
        for name, module in policy.named_modules()
        if isinstance(module, Normalizer)
        for buffer, _ in module.named_buffers()
    }
    here = {name: tensor for name, tensor in policy.state_dict().items() if name not in statistics}
    there = {name: tensor for name, tensor in weights.items() if name not in statistics}
    both = [name for name in here if name in there]
    copied = tuple(name for name in both if here[name].shape == there[name].shape)
    fit = Fit(
        copied=copied,
        other_shape=tuple(
            f"{name} {tuple(here[name].shape)} here, {tuple(there[name].shape)} there"
            for name in both
            if here[name].shape != there[name].shape
        ),
        only_here=tuple(name for name in here if name not in there),
        only_there=tuple(name for name in there if name not in here),
        own_statistics=tuple(sorted(statistics)),
    )
    if not {name for name, _ in policy.named_parameters(remove_duplicate=False)} & set(copied):
        cure = "give a run of the same policy, or leave --init away"
        raise UsageError(f"--init {where}: no parameter fits the policy {type(policy).__name__}: {fit.line}", cure)
    for name in copied:
        here[name].copy_(there[name])
    return fit


def _first(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
