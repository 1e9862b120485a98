"""The optimizer: which parameters decay, its state by the names of the parameters, and a step that may be skipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vlapipe.train.optim.groups import optimizer_groups, set_learning_rate

__all__ = [
    "load_optimizer_tensors",
    "make_optimizer",
    "optimizer_tensors",
    "step_unless",
    "trained_parameters",
]


def make_optimizer(policy: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Returns a fused AdamW over the policy's parameter groups. Frozen parameters are left out."""
    groups = optimizer_groups(policy, weight_decay=weight_decay)
    parameters = [p for group in groups for p in group["params"]]
    fused = all(p.is_floating_point() and p.device.type in ("cuda", "cpu") for p in parameters)
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=fused)
    set_learning_rate(optimizer, learning_rate)
    return optimizer


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Returns the parameters that the optimizer moves; a walk over the policy's modules takes ten times as long."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Returns the optimizer's state by ``<parameter>|<entry>``, for a checkpoint. Tensors are not copied."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{names[parameter]}|{entry}": value
        for parameter, entries in optimizer.state.items()
        for entry, value in entries.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore the optimizer's state from the result of ``optimizer_tensors``. Groups may be others than then.

    A parameter that is frozen now loses its state. A parameter that was frozen then begins without a state.

    Raises:
        KeyError: the state has a parameter that the module does not have.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, entry = key.rpartition("|")
        by_name.setdefault(name, {})[entry] = value
    parameters = dict(module.named_parameters())
    place = {parameter: i for i, parameter in enumerate(trained_parameters(optimizer))}
    trained = {name: entries for name, entries in by_name.items() if parameters[name] in place}
    state = {place[parameters[name]]: entries for name, entries in trained.items()}
    # load_state_dict moves each entry to the device of its parameter.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def step_unless(optimizer: torch.optim.Optimizer, is_bad: Tensor) -> None:
    """Move the weights, unless ``is_bad`` is not 0. A fused optimizer decides on the device: the host never waits."""
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = is_bad  # type: ignore[attr-defined]  # as torch.amp.GradScaler does
        optimizer.step()
    elif not is_bad.item():
        optimizer.step()
