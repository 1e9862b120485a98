"""The interface of a policy: an ``nn.Module`` with ``loss(batch)`` and ``act(observation)``.

A policy may also have ``parameter_groups()``, which returns a list of ``ParameterGroup``.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Batch, SampleSpec

__all__ = [
    "Batch",
    "LossOutput",
    "ParameterGroup",
    "Policy",
    "blocks_of",
    "instruction_note",
    "noise_shapes",
    "prepared",
    "preprocessor_of",
]


@dataclass(frozen=True)
class LossOutput:
    """The loss of one batch as a sum. The trainer divides the sum of a step by the weight of the step.

    A step adds up ``total`` and ``weight`` over all its batches and ranks. So its gradient equals that of one large
    batch, also if batches have different numbers of padded actions. A further term of the loss must be added to
    ``total`` as a sum too, in the same measure: for example the sum over samples, multiplied by H.
    """

    total: Tensor  # scalar: the sum of the errors that count
    weight: Tensor  # scalar: how much counts, for example the number of actions that are not padded
    metrics: Mapping[str, Tensor] = field(default_factory=dict)  # further scalars to log: means over the batch

    @classmethod
    def masked(cls, values: Tensor, counts: Tensor, metrics: Mapping[str, Tensor] | None = None) -> LossOutput:
        """Returns the sum of ``values`` where ``counts`` (bool, broadcast to ``values``) is True, and their number.

        A value that does not count may be infinite or NaN.
        """
        counts = counts.expand_as(values)
        kept = torch.where(counts, values, torch.zeros((), dtype=values.dtype, device=values.device))
        return cls(kept.sum(), counts.sum(), metrics or {})

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone: ``total / weight``; 0 if nothing counts."""
        return self.total / self.weight.clamp_min(1)


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that the optimizer treats alike. ``parameters`` may be an iterator; it is read once.

    A group with ``frozen=True`` is not trained, unless the user's ``[trainable]`` table names its parameters.
    """

    name: str
    parameters: Iterable[nn.Parameter]
    learning_rate_factor: float = 1.0  # times the learning rate of the schedule
    weight_decay: float | None = None  # None: the run's weight_decay for parameters with 2 or more dimensions, else 0
    frozen: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))


class Policy(nn.Module, ABC):
    """Base class of the built-in policies. Your own policy may be any ``nn.Module`` with these methods.

    The trainer calls the constructor as ``Class(spec, **policy_args)`` with a ``SampleSpec``. A checkpoint saves only
    parameters and buffers, so store the statistics of normalization in buffers too.
    """

    @abstractmethod
    def loss(self, batch: Batch) -> LossOutput | Tensor:
        """Returns the loss over the entries of ``action`` (B, H, A) where ``action_is_pad`` (B, H) is False.

        A plain scalar is their mean.
        """

    @abstractmethod
    def act(self, observation: Batch) -> Tensor:
        """Returns the action chunk ``(B, H, A)`` in the dataset's units. The batch may lack the ``action`` keys."""

    def prepare(self, batch: Batch) -> Batch:
        """Returns what ``loss`` needs instead of ``batch``: for example, numbers in place of the texts of ``task``.

        torch.compile compiles ``loss``, and cannot compile work on texts. So this method does such work before.
        """
        return batch

    @classmethod
    def arguments_for(
        cls, spec: SampleSpec, num_episodes: int, given: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Returns arguments that suit the data better than the defaults. The run adds them to its ``policy_args``.

        Args:
            spec: shapes and statistics of the samples.
            num_episodes: how many episodes there are to learn from.
            given: the run's ``policy_args``, which have the last word.
            before: those of the run that this one resumes or begins with (``--init``); None if it begins anew. Of what
                is returned, a resumed run takes only what it had before.
        """
        del spec, num_episodes, given, before
        return {}

    def preprocessor(self) -> Callable[[Batch], Batch] | None:
        """Returns a function that the loader's threads call with each batch, on the CPU; None by default.

        It must hold neither the policy nor its parameters. ``loss`` and ``act`` must do the same work themselves if
        their batch did not go through it.
        """
        return None

    def blocks(self) -> Iterable[nn.Module]:
        """Returns the layers that are repeated or large, from the input to the output; none by default.

        FSDP splits each of them by itself. Gradient checkpointing recomputes each of them in backward. Each must be
        called as a module, so that hooks of its ``forward`` run.
        """
        return ()

    def flops_per_sample(self) -> float | None:
        """Returns the floating-point operations of the forward pass of one sample; None if they are unknown.

        A multiplication and an addition count as two. The trainer logs ``train/mfu_%`` by it, and counts the backward
        pass as twice the forward pass. ``flops.count_forward_flops`` counts them without computing them.
        """
        return None

    def instruction_note(self, instructions: Sequence[str]) -> str:  # noqa: ARG002
        """Returns a sentence for the user if the policy reads only a part of some instructions; empty by default.

        ``instructions`` are those of all episodes, each once. The trainer says the sentence before the first step.
        """
        return ""

    def noise_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns the shape of each entry of standard normal noise, without the batch dimension; none by default.

        ``act`` draws such an entry unless the observation has it. So an exported policy takes it as an input.
        """
        return {}

    def forward(self, batch: Batch) -> LossOutput | Tensor:
        """Returns ``loss(batch)``."""
        return self.loss(batch)


def blocks_of(policy: nn.Module) -> list[nn.Module]:
    """Returns the layers that the policy's method ``blocks`` names; none if the policy has no such method.

    Raises:
        UsageError: a block is no module of the policy, is named twice, or lies within another one that comes before.
    """
    named = getattr(policy, "blocks", None)
    blocks = [*named()] if inspect.ismethod(named) else []
    parts, seen = set(policy.modules()), set[nn.Module]()
    for block in blocks:
        problem = ""
        if not isinstance(block, nn.Module) or isinstance(block, nn.ModuleList | nn.ModuleDict):
            problem = f"expected modules that are called, found a {type(block).__name__}"
        elif block not in parts:
            problem = f"{type(block).__name__} is no part of the policy"
        elif block in seen:
            problem = f"a {type(block).__name__} is named twice, or after a block that holds it"
        if problem:
            cure = "return each large layer once, the inner ones first"
            raise UsageError(f"policy {type(policy).__name__}: blocks(): {problem}", cure)
        seen |= set(block.modules())
    return blocks


def instruction_note(policy: nn.Module, instructions: Sequence[str]) -> str:
    """Returns ``policy.instruction_note(instructions)``; empty if the policy has no such method."""
    note = getattr(policy, "instruction_note", None)
    return str(note(instructions) or "") if inspect.ismethod(note) else ""


def noise_shapes(policy: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """Returns ``policy.noise_shapes()``; none if the policy has no such method."""
    method = getattr(policy, "noise_shapes", None)
    return method() if inspect.ismethod(method) else {}


def preprocessor_of(policy: nn.Module) -> Callable[[Batch], Batch] | None:
    """Returns ``policy.preprocessor()``; None if the policy has no such method."""
    method = getattr(policy, "preprocessor", None)
    return method() if inspect.ismethod(method) else None


def prepared(policy: nn.Module, batch: Batch) -> Batch:
    """Returns ``policy.prepare(batch)``; ``batch`` itself if the policy has no such method."""
    prepare = getattr(policy, "prepare", None)
    return prepare(batch) if inspect.ismethod(prepare) else batch
