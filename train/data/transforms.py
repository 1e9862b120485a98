"""Runs a user's own functions on each batch, in the loader's threads, after everything else of the loader.

A transform is a callable that takes a batch, a dict, and returns one. Each entry of a batch has its samples as its
first dimension. Several threads may call a transform at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.batch_layout import Batch, SampleSpec
from vlapipe.train.data.named_object import attribute, import_named, one_line, place_of

__all__ = ["Transform", "Transforms", "with_actions_of_padding"]

Transform = Callable[[Batch], Any]  # Any: what a user's function returns is checked


class Transforms:
    """A chain of transforms. It is pickled by the functions, so a function that another process needs has a name."""

    def __init__(self, functions: Sequence[Transform], names: Sequence[str]) -> None:
        self.functions, self.names = tuple(functions), tuple(names)

    @classmethod
    def parse(cls, what: str, given: Any) -> Transforms:
        """Returns the chain of functions, or of texts ``pkg.module:function``. ``what`` begins each message.

        Raises:
            UsageError: a text names nothing that can be imported and called, or something else was given.
        """
        if isinstance(given, str) or not isinstance(given, Sequence):
            cure = 'write ["pkg.module:function"]'
            raise UsageError(f"{what}: expected a list of functions, found {given!r:.60}", cure)
        functions, names = list[Transform](), list[str]()
        for one in given:
            function = _imported(what, one) if isinstance(one, str) else one
            if not callable(function):
                problem = f"{what}: expected a function of a batch, found a {type(function).__name__}"
                raise UsageError(f"{problem}: {one!r:.60}", "a transform takes a dict and returns one")
            functions.append(function)
            names.append(one if isinstance(one, str) else getattr(one, "__qualname__", type(one).__name__))
        return cls(functions, names)

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch after all transforms.

        Raises:
            UsageError: a transform fails, or does not return a dict.
        """
        for function, name in zip(self.functions, self.names, strict=True):
            try:
                found = function(batch)
            except VlapipeError:
                raise
            except Exception as error:
                cure = "correct the transform, or leave it out"
                raise UsageError(f"transform {name}: {one_line(error)}{place_of(error)}", cure) from error
            if not isinstance(found, Mapping):
                problem = f"transform {name}: expected a dict of the batch's entries, found a {type(found).__name__}"
                raise UsageError(problem, "return the batch")
            batch = dict(found)
        return batch

    def undo(self, actions: Any) -> Any:
        """Returns actions that a policy predicts as they were before the transforms, by each transform's ``undo``."""
        for function in reversed(self.functions):
            back = getattr(function, "undo", None)
            actions = actions if back is None else back(actions)
        return actions

    @property
    def without_undo(self) -> str:
        """The name of the first transform that has no method ``undo``; empty if all have one."""
        pairs = zip(self.functions, self.names, strict=True)
        return next((name for function, name in pairs if not callable(getattr(function, "undo", None))), "")


def with_actions_of_padding(spec: SampleSpec, observation: Batch) -> Batch:
    """Returns the observation with the entries of a batch that it lacks, so that a transform can be called with it.

    Its actions are zeros and all of them padding; its numbers of frames are 0.
    """
    count = len(observation["observation.state"])
    device = observation["observation.state"].device
    H, A = spec.action
    numbers = ("episode_index", "frame_index", "index")
    return {
        "action": torch.zeros((count, H, A), device=device),
        "action_is_pad": torch.ones((count, H), dtype=torch.bool, device=device),
        **{key: torch.zeros(count, dtype=torch.int64, device=device) for key in numbers},
        "timestamp": torch.zeros(count, dtype=torch.float64, device=device),
        **observation,
    }


def _imported(what: str, name: str) -> Any:
    module_name, colon, dotted = name.partition(":")
    if not colon or not module_name or not dotted:
        raise UsageError(f"{what}: expected pkg.module:function, found {name!r}", "name the module and the function")
    module = import_named(f"{what}: {name}", module_name)
    found = attribute(module, dotted)
    if found is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        cure = did_you_mean(dotted, known) if known else f"define {dotted} there"
        raise UsageError(f"{what}: module {module_name} has no {dotted!r}", cure)
    return found
