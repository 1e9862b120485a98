"""Which parameters are trained: the ``[trainable]`` table, by patterns on the names of parameters.

Patterns are those of ``fnmatch``, such as ``trunk.blocks.2.*``. A pattern that matches nothing is refused. The table
overrules what the policy itself has frozen.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number
from vlapipe.train.optim.lora import inject_lora, linear_layers

__all__ = ["LoRA", "Trainable"]

_SHOWN = 8  # maximum number of names in a message


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Low-rank adapters on the linear layers that ``targets`` match; ``[trainable.lora]`` in TOML."""

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float | None = None  # the adapters' output is multiplied by alpha / rank; None: 2 x rank, also in saved runs

    def __post_init__(self) -> None:
        where = "[trainable.lora]"
        object.__setattr__(self, "targets", _patterns(f"{where} targets", self.targets))
        object.__setattr__(self, "rank", parse_whole_number(f"{where} rank", self.rank, least=1))
        alpha = 2 * self.rank if self.alpha is None else self.alpha
        object.__setattr__(self, "alpha", parse_number(f"{where} alpha", alpha, least=0))
        if not self.targets:
            raise UsageError(f"{where}: no targets", 'name linear layers, for example targets = ["trunk.*"]')

    @property
    def scale(self) -> float:
        """Factor of the adapters' output."""
        assert self.alpha is not None  # the constructor fills in the default
        return self.alpha / self.rank


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """What is trained.

    - ``train``: only parameters that a pattern matches.
    - ``freeze``: not the parameters that a pattern matches, even if ``train`` matches them too.
    - ``lora``: adapters on linear layers, and besides them only what ``train`` matches.
    """

    train: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    lora: LoRA | None = field(default=None)

    def __post_init__(self) -> None:
        for name in ("train", "freeze"):
            object.__setattr__(self, name, _patterns(f"[trainable] {name}", getattr(self, name)))

    @classmethod
    def from_table(cls, values: Mapping[str, Any]) -> Trainable:
        """Make a ``Trainable`` from the configuration's table ``[trainable]``.

        Raises:
            UsageError: a key is unknown, missing, or has a wrong value.
        """
        _refuse_unknown(values, cls, "[trainable]")
        lora = values.get("lora")
        if lora is None:
            return cls(**values)
        if not isinstance(lora, Mapping):
            raise UsageError(f"[trainable] lora: expected a table, found {lora!r}", "write it as [trainable.lora]")
        _refuse_unknown(lora, LoRA, "[trainable.lora]")
        return cls(**{**values, "lora": LoRA(**{"targets": (), **lora})})

    def apply(self, policy: nn.Module) -> None:
        """Freeze, unfreeze and add adapters, in place. Without a key, the policy stays as it is.

        Call ``apply`` before the policy is sharded and before the optimizer is made.

        Raises:
            UsageError: a pattern matches nothing, nothing is left to train, or LoRA needs peft, which is not installed.
        """
        parameters = dict(policy.named_parameters(remove_duplicate=False))  # a tied parameter has several names
        to_freeze = _matched(self.freeze, parameters, "[trainable] freeze")
        to_train = _matched(self.train, parameters, "[trainable] train") - to_freeze
        if self.lora is not None:
            assert self.lora.alpha is not None
            layers = _matched(self.lora.targets, linear_layers(policy), "[trainable.lora] targets")
            both = min((name for name in to_train if name.rpartition(".")[0] in layers), default=None)
            if both is not None:
                cure = "name its layer in one of the two"
                raise UsageError(f"[trainable]: {both} is trained as a whole and by LoRA", cure)
            inject_lora(policy, layers, rank=self.lora.rank, alpha=self.lora.alpha)
        if self.train or self.lora is not None:
            to_freeze = parameters.keys() - to_train
        for name in to_freeze:
            parameters[name].requires_grad_(False)
        for name in to_train:
            _unfreeze(name, parameters[name])
        if not any(p.requires_grad for p in policy.parameters()):
            raise UsageError("[trainable]: nothing is left to train", "freeze less, or name in train what is trained")


def _unfreeze(name: str, parameter: nn.Parameter) -> None:
    if not parameter.is_floating_point():
        cure = "leave it out of the patterns"
        raise UsageError(f"[trainable] train: {name}: {parameter.dtype} numbers cannot be trained", cure)
    parameter.requires_grad_()


def _matched(patterns: Iterable[str], names: Iterable[str], where: str) -> set[str]:
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern)}
        if not matched:
            raise UsageError(f"{where} {pattern!r}: matches nothing", _nearest(pattern, names))
        found |= matched
    return found


def _nearest(pattern: str, names: list[str]) -> str:
    """Returns a cure: the nearest names, and the nearest patterns of all that is in a module."""
    parts = [name.split(".") for name in names]
    modules = {".".join(part[:i]) + ".*" for part in parts for i in range(1, len(part))}
    near = difflib.get_close_matches(pattern, [*sorted(modules), *names], n=3, cutoff=0.6)
    if near:
        return f"the nearest are {', '.join(map(repr, near))}"
    top = sorted({part[0] + ".*" if len(part) > 1 else part[0] for part in parts})
    return f"there are {', '.join(top[:_SHOWN])}{' and more' if len(top) > _SHOWN else ''}" if top else "there is none"


def _patterns(where: str, value: Any) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(item, str) and item for item in values):
        raise UsageError(f"{where}: expected a list of patterns, found {value!r}")
    return tuple(values)


def _refuse_unknown(values: Mapping[str, Any], known: type, where: str) -> None:
    names = [f.name for f in fields(known)]
    for name in values:
        if name not in names:
            raise UsageError(f"{where}: unknown option {name!r}", did_you_mean(name, names))
