"""Policies that misbehave on purpose."""

from __future__ import annotations

import builtins
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tiny_policy import TinyPolicy
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies.base import LossOutput, ParameterGroup
from vlapipe.train.policies.regression import RegressionPolicy


class NaNAtStep(RegressionPolicy):
    """Its loss is not a number in the ``at``-th training batch, on one rank."""

    def __init__(self, spec: SampleSpec, *, at: int, on_rank: int = 0, where: str = "loss", **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.at, self.where, self.seen = at, where, 0
        self.here = int(os.environ.get("RANK", "0")) == on_rank

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """As it should be until then."""
        self.seen += self.training
        loss = super().loss(batch).mean
        if self.training and self.seen == self.at and self.here:
            # sqrt(0) has a value and no gradient.
            loss = loss * float("nan") if self.where == "loss" else loss + (self.head.bias * 0).sum().sqrt()
        return loss


class SignalAtStep(RegressionPolicy):
    """One rank sends itself SIGTERM in its ``at``-th training batch."""

    def __init__(self, spec: SampleSpec, *, at: int, on_rank: int = 0, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.at, self.seen = at, 0
        self.here = int(os.environ.get("RANK", "0")) == on_rank

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be."""
        self.seen += self.training
        if self.training and self.seen == self.at and self.here:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(batch)


class FailsAtStep(RegressionPolicy):
    """One rank fails in its ``at``-th training batch, or in ``validation``.

    ``how`` is ``forward``, ``backward``, ``validation``, ``memory``, ``exit`` or ``killed``; ``error`` what is raised.
    """

    def __init__(
        self, spec: SampleSpec, *, how: str, at: int, on_rank: int, error: str = "RuntimeError", **sizes: Any
    ) -> None:
        super().__init__(spec, **sizes)
        self.how, self.at, self.seen, self.error = how, at, 0, getattr(builtins, error)
        self.here = int(os.environ.get("RANK", "0")) == on_rank

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """As it should be until then."""
        self.seen += self.training
        loss = super().loss(batch).mean
        if not self.training and self.how == "validation" and self.here:
            raise self.error("validation fails")
        if not (self.training and self.seen == self.at and self.here):
            return loss
        if self.how == "forward":
            raise self.error("forward fails")
        if self.how == "exit":
            sys.exit()
        if self.how == "memory":
            torch.empty(1 << 50, dtype=torch.uint8)
        loss.register_hook(self._fail)
        return loss

    def _fail(self, _: Tensor) -> None:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise self.error("backward fails")


class HurtsWandb(RegressionPolicy):
    """Sends a signal to W&B's helper process in its second training batch."""

    def __init__(self, spec: SampleSpec, *, signal_number: int, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.signal_number, self.seen = signal_number, 0

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be."""
        self.seen += self.training
        if self.training and self.seen == 2:
            [helper] = [pid for pid in _children() if "wandb-core" in (pid / "cmdline").read_text()]
            os.kill(int(helper.name), self.signal_number)
            sys.stdout.write(f"{helper.name}\n")
        return super().loss(batch)


def _children() -> list[Path]:
    """Of this process, in /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # another process that has ended meanwhile
            if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                found.append(stat.parent)
    return found


class Noisy(RegressionPolicy):
    """Draws from torch's generator in every step."""

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """With noise."""
        return super().loss(batch).mean * (1 + 0.1 * torch.rand(()))


class DrawsEverywhere(RegressionPolicy):
    """Draws from torch's, NumPy's and Python's generators whenever it is asked for a loss."""

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """With noise."""
        noise = float(torch.rand(())) + np.random.rand() + random.random()  # noqa: NPY002, S311
        return super().loss(batch).mean * (1 + 0.1 * noise)


class SaysWhatItValidates(RegressionPolicy):
    """Writes the number of each frame that it validates."""

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be."""
        if not self.training:
            sys.stderr.write(f"validates {batch['index'].tolist()}\n")
        return super().loss(batch)


class FrozenInEvaluationMode(RegressionPolicy):
    """Has a part that is in evaluation mode, as a frozen backbone is, and looks at it in each batch."""

    def __init__(self, spec: SampleSpec, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.frozen = nn.Dropout(0.5).eval()

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be."""
        assert not self.frozen.training
        return super().loss(batch)


class SaysWhatItTrains(RegressionPolicy):
    """Writes the number of each frame that it trains on."""

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be."""
        if self.training:
            sys.stderr.write(f"trains {batch['index'].tolist()}\n")
        return super().loss(batch)


class Odd(nn.Module):
    """One layer and a ``loss`` that is wrong, or odd, as ``kind`` says."""

    def __init__(self, spec: SampleSpec, *, kind: str) -> None:
        super().__init__()
        self.kind, self.seen = kind, 0
        self.spare = nn.Linear(3, 3)
        self.layer = nn.LazyLinear(1) if kind == "lazy" else nn.Linear(spec.state[1], 1)
        if kind == "no parameter":
            del self.layer, self.spare
        elif kind == "frozen":
            self.requires_grad_(False)

    def loss(self, batch: dict[str, Any]) -> Any:
        """Of the newest state alone; the layer ``spare`` is not used, or not always."""
        self.seen += self.training
        errors = self.layer(batch["observation.state"][:, -1] / 1000).square()
        kinds = {
            "vector": errors[:, 0],
            "dict": {"loss": errors.mean()},
            "number": 3.0,
            "whole": errors.sum().long(),
            "detached": errors.detach().mean(),
            "one of one": errors.mean().reshape(1),
        }
        if self.kind in kinds:
            return kinds[self.kind]
        spare_is_used = {"unused": False, "unused later": self.seen < 3}[self.kind]
        kept = (~batch["action_is_pad"]).sum(dim=1, keepdim=True)
        return (errors * kept).sum() / kept.sum() + (self.spare(torch.ones(3)).square().sum() if spare_is_used else 0.0)

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Nothing useful."""
        return torch.zeros(len(observation["task"]), 1, 1)


class Experts(nn.Module):
    """Each sample is judged by one of two layers, the others are used in the ``extra_at``-th batch alone.

    The last of them is never used unless that is the first batch.
    """

    built: ClassVar[list[Experts]] = []

    def __init__(self, spec: SampleSpec, *, extra_at: int) -> None:
        super().__init__()
        self.extra_at = extra_at
        self.experts = nn.ModuleList(nn.Linear(spec.state[1], 3) for _ in range(4))
        self.seen = 0
        self.built.append(self)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The mean over all actions that are kept, of an error for each sample."""
        self.seen += self.training
        state = batch["observation.state"][:, -1] / 1000
        kept = (~batch["action_is_pad"]).sum(dim=1)
        chosen = batch["frame_index"] % 2
        total = torch.zeros(())
        for number in chosen.unique().tolist():
            errors = self.experts[number](state[chosen == number]).square().mean(dim=1)
            total = total + (errors * kept[chosen == number]).sum()
        if self.training and self.seen == self.extra_at:
            for expert in self.experts if self.extra_at == 1 else self.experts[2:3]:
                total = total + (expert(state).square().mean(dim=1) * kept).sum()
        return total / kept.sum()

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Nothing useful."""
        return torch.zeros(len(observation["task"]), 1, 1)


class Unlike(RegressionPolicy):
    """Another policy on the last rank: in a parameter's shape, its dtype, in a buffer, or in what is trained."""

    def __init__(self, spec: SampleSpec, *, kind: str, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
        self.extra = nn.Linear(2, 6 if last and kind == "shape" else 3, bias=False)
        self.other = nn.Linear(6 - 3 * (last and kind == "shape"), 1)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int32 if last and kind == "buffer" else torch.int64))
        if last and kind == "dtype":
            self.extra.bfloat16()
        if last and kind == "frozen":
            self.extra.requires_grad_(False)


class HangsAtStep(RegressionPolicy):
    """One rank never ends its ``at``-th training batch, in ``forward`` or ``backward``, or is ``stopped`` there."""

    def __init__(self, spec: SampleSpec, *, how: str, at: int, on_rank: int, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.how, self.at, self.seen = how, at, 0
        self.here = int(os.environ.get("RANK", "0")) == on_rank

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be until then."""
        self.seen += self.training
        loss = super().loss(batch)
        if not (self.training and self.seen == self.at and self.here):
            return loss
        if self.how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.how == "forward":
            self._loop_for_ever(loss.total)
        loss.total.register_hook(self._loop_for_ever)
        return loss

    def _loop_for_ever(self, x: Tensor) -> None:
        while True:
            x = torch.relu(x)


class SaysWhatItReads(RegressionPolicy):
    """Writes the number of each frame that it trains on."""

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be."""
        if self.training:
            sys.stderr.write(f"rank {os.environ['RANK']} reads {batch['index'].tolist()}\n")
        return super().loss(batch)


class Grouped(RegressionPolicy):
    """The head has the schedule's rate, one part is frozen, the rest has a smaller rate; one part may be left out."""

    def __init__(
        self, spec: SampleSpec, *, factor: float = 1.0, frozen: str = "none", left_out: str = "none", **sizes: Any
    ) -> None:
        super().__init__(spec, **sizes)
        self.factor, self.frozen, self.left_out = factor, frozen, left_out

    def parameter_groups(self) -> list[ParameterGroup]:
        """Head, frozen part, rest."""
        parts: dict[str, list[nn.Parameter]] = {"head": [], self.frozen: [], self.left_out: [], "rest": []}
        for name, parameter in self.named_parameters():
            part = name.partition(".")[0]
            parts[part if part in parts else "rest"].append(parameter)
        return [
            ParameterGroup(name="head", parameters=parts["head"]),
            ParameterGroup(name="frozen", parameters=parts[self.frozen], frozen=True),
            ParameterGroup(name="rest", parameters=parts["rest"], learning_rate_factor=self.factor),
        ]


class FlatAttention(nn.Module):
    """Its attention has no dimension for heads, which only the plain kernel takes."""

    def __init__(self, spec: SampleSpec, **_: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(spec.state[1], 16)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Of all states."""
        tokens = self.layer(batch["observation.state"] / 1000)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).square().mean()

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Nothing useful."""
        return torch.zeros(len(observation["task"]), 1, 1)


class HardToCompile(nn.Module):
    """One layer and a ``loss`` that torch.compile splits, compiles again in the fourth batch, or cannot compile."""

    def __init__(self, spec: SampleSpec, *, kind: str) -> None:
        super().__init__()
        self.kind, self.seen, self.factor = kind, 0, 1
        self.layer = nn.Linear(spec.state[1], 1)

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count batches; ``loss`` depends on ``factor``, a number that a graph holds as a constant."""
        self.seen += self.training
        self.factor = 2 if self.kind == "again" and self.seen >= 4 else 1
        return batch | {"task": ["again " * self.seen]}

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """Of the newest state alone."""
        error = self.layer(batch["observation.state"][:, -1] / 1000).square().mean() * self.factor
        if self.kind == "split" and error.item() < 0:
            return error * 2
        if self.kind == "texts":
            return error * len(batch["task"][0]) / 20
        return error

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Nothing useful."""
        return torch.zeros(len(observation["task"]), 1, 1)


class Slow(RegressionPolicy):
    """Takes some seconds for each batch."""

    def __init__(self, spec: SampleSpec, *, seconds: float, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.seconds = seconds

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """As it should be, but late."""
        time.sleep(self.seconds)
        return super().loss(batch)


class LateEpisodes(TinyPolicy):
    """The loss of a sample is 1 from an episode on, and 0 before."""

    def __init__(self, spec: SampleSpec, *, first: int) -> None:
        super().__init__(spec)
        self.first = first

    def loss(self, batch: dict[str, Any]) -> LossOutput:
        """Every sample that has an action counts alike."""
        counts = ~batch["action_is_pad"].all(1)
        is_late = (batch["episode_index"] >= self.first) & counts
        return LossOutput(is_late.sum() + 0 * self.layer.weight.sum(), counts.sum())
