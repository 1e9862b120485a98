"""The optimizer's parameter groups: those of the policy's ``parameter_groups()``, else one group of all parameters.

Every parameter to train is in exactly one group. The method is called again whenever the groups are needed, because
LoRA and sharding replace parameters of the policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.train.data.arguments import parse_number
from vlapipe.train.policies.base import ParameterGroup

__all__ = ["freeze_groups", "optimizer_groups", "set_learning_rate"]

_METHOD = "parameter_groups()"
_NAMED = 5  # maximum number of parameters that a message names; the message counts the others


def freeze_groups(policy: nn.Module) -> None:
    """Freeze the parameters of the groups with ``frozen=True``.

    Raises:
        UsageError: the groups are not valid.
    """
    for group in _groups_of(policy):
        if group.frozen:
            for parameter in group.parameters:
                parameter.requires_grad_(False)


def optimizer_groups(policy: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Returns torch's parameter groups, with the keys ``params``, ``weight_decay``, ``name`` and ``lr_factor``.

    A group without a weight decay of its own becomes two: ``weight_decay`` applies to its parameters with 2 or more
    dimensions, 0 to the others. Frozen parameters and empty groups are left out.

    Raises:
        UsageError: the groups are not valid.
    """
    return [group for group in _split(policy, weight_decay) if group["params"]]


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of each group: ``learning_rate`` times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_factor", 1.0)


def _split(policy: nn.Module, weight_decay: float) -> Iterator[dict[str, Any]]:
    for group in _groups_of(policy):
        trained = [p for p in group.parameters if p.requires_grad]
        common = {"name": group.name, "lr_factor": group.learning_rate_factor}
        if group.weight_decay is not None:
            yield {"params": trained, "weight_decay": group.weight_decay, **common}
            continue
        yield {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay, **common}
        yield {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0, **common}


def _groups_of(policy: nn.Module) -> list[ParameterGroup]:
    method = getattr(policy, "parameter_groups", None)
    if method is None:
        return [ParameterGroup(name="all", parameters=policy.parameters())]
    where = f"policy {type(policy).__name__}: {_METHOD}"
    try:
        groups = list(method())
    except VlapipeError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UsageError(f"{where} fails: {found}", "it takes no argument and returns a list of groups") from error
    for group in groups:
        _check(group, where)
    _check_partition(policy, groups, where)
    return groups


def _check(group: Any, where: str) -> None:
    if not isinstance(group, ParameterGroup):
        cure = "from vlapipe.train.policies.base import ParameterGroup"
        raise UsageError(f"{where}: expected a list of ParameterGroup, found a {type(group).__name__}", cure)
    what = f"{where}: group {group.name!r}"
    parse_number(f"{what}: learning_rate_factor", group.learning_rate_factor, least=0)
    if group.weight_decay is not None:
        parse_number(f"{what}: weight_decay", group.weight_decay, least=0)


def _check_partition(policy: nn.Module, groups: list[ParameterGroup], where: str) -> None:
    """Refuse parameters of other modules, of two groups, and trained parameters of no group."""
    names = {parameter: name for name, parameter in policy.named_parameters()}
    group_of: dict[nn.Parameter, str] = {}
    for group in groups:
        for parameter in group.parameters:
            if parameter not in names:
                found = f"shape {tuple(parameter.shape)}" if isinstance(parameter, torch.Tensor) else repr(parameter)
                cure = "look parameters up in the policy at each call; keep no list of them"
                raise UsageError(f"{where}: group {group.name!r} has what is no parameter of the policy: {found}", cure)
            if parameter in group_of:
                both = f"groups {group_of[parameter]!r} and {group.name!r}"
                raise UsageError(f"{where}: {names[parameter]} is in {both}", "put each parameter into one group")
            group_of[parameter] = group.name
    left = [name for parameter, name in names.items() if parameter.requires_grad and parameter not in group_of]
    if left:
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        cure = "put each parameter into one group, with frozen=True if it is not to be trained"
        raise UsageError(f"{where}: in no group: {', '.join(left[:_NAMED])}{more}", cure)
