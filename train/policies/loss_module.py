"""The policy's loss as a module, whose ``forward`` DDP, FSDP and torch.compile can hook; and the sums of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.policies.base import LossOutput, prepared

__all__ = ["LossOf", "LossSums"]

_TAKEN = {"loss", "grad_norm", "learning_rate", "step", "samples_per_s", "mfu_%"}
_Sums = tuple[Tensor, Tensor, dict[str, Tensor]]  # total, weight, metrics; a tuple, because FSDP looks for its tensors


class LossOf(nn.Module):
    """Contains the policy. ``forward`` is its loss, in training and in validation, or what the policy would do."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch, *, acts: bool = False) -> _Sums | Tensor:
        """Returns ``compute(batch)`` after the policy's own ``prepare``; with ``acts``, the policy's actions.

        Both go through here, because FSDP gathers the parameters for a call of this module.
        """
        if acts:
            actions: Tensor = self.policy.act(batch)  # type: ignore[operator]
            return actions
        return self.compute(prepared(self.policy, batch))

    def compute(self, batch: Batch) -> _Sums:
        """Returns the total, the weight and the metrics of the batch: scalars on the device.

        torch.compile compiles this method.

        Raises:
            UsageError: the policy's ``loss`` returned no ``LossOutput`` and no scalar, or it has no gradient.
        """
        loss = self.policy.loss(batch)  # type: ignore[operator]
        if isinstance(loss, LossOutput):
            total, weight = self._scalar(loss.total, "total"), self._number(loss.weight, "weight", loss.total)
            metrics = {name: self._number(value, f"metrics {name}", total) for name, value in loss.metrics.items()}
        else:
            # A plain scalar is the mean over the actions that are not padded.
            weight = (~batch["action_is_pad"]).sum().double()
            mean = self._scalar(loss)
            total, metrics = torch.where(weight > 0, mean * weight.to(mean.dtype), torch.zeros_like(mean)), {}
        if torch.is_grad_enabled() and not total.requires_grad:
            raise self._wrong(
                "it has no gradient", "compute it from the policy's parameters, without no_grad, detach or item"
            )
        return total, weight, metrics

    def _scalar(self, loss: Any, name: str = "") -> Tensor:
        found = f"{name}: " if name else ""
        if not isinstance(loss, Tensor):
            cure = "return the total loss alone, or a LossOutput"
            raise self._wrong(f"{found}expected a scalar tensor, found a {type(loss).__name__}", cure)
        if loss.numel() != 1:
            cure = "return its mean()" if not name else "return its sum()"
            raise self._wrong(f"{found}expected a scalar, found a tensor of shape {tuple(loss.shape)}", cure)
        if not loss.is_floating_point():
            raise self._wrong(f"{found}expected a floating-point scalar, found {loss.dtype}", "return a float tensor")
        return loss.sum() if loss.dim() else loss  # not a view, of which FSDP would warn

    def _number(self, value: Any, name: str, like: Tensor) -> Tensor:
        """Returns a number or a tensor of one number as a float64 scalar without gradient."""
        if not isinstance(value, Tensor | int | float) or (isinstance(value, Tensor) and value.numel() != 1):
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.40}"
            raise self._wrong(f"{name}: expected one number, found {found}", "return its sum() or mean()")
        return torch.as_tensor(value, device=like.device).detach().double().reshape(())

    def _wrong(self, problem: str, cure: str) -> UsageError:
        return UsageError(f"policy {type(self.policy).__name__}: loss(batch): {problem}", cure)


class LossSums:
    """Adds up the losses of the passes of one step on the device. Each pass has metrics of the same names."""

    def __init__(self, gather: Callable[[bytes], list[bytes]] = lambda mine: [mine]) -> None:
        """``gather`` returns a text of every rank; the names of the metrics are compared by it, once."""
        self._gather = gather
        self._names: tuple[str, ...] | None = None
        self._passes: list[Tensor] = []

    def add(self, sums: _Sums) -> None:
        """Add one pass: the result of ``LossOf``. Metrics are weighted by the pass's weight. The first one: collective.

        Raises:
            UsageError: the metrics have other names than in an earlier pass or on another rank, or a name of a metric
                that the trainer itself logs.
        """
        total, weight, metrics = sums
        names = tuple(sorted(metrics))
        if self._names is None:
            self._names = names
            self._require_same_on_ranks(names)
        if names != self._names:
            raise _other_names(self._names, names)
        values = [total.detach(), weight, *(metrics[name] * weight for name in names)]
        self._passes.append(torch.stack([value.double() for value in values]))

    def _require_same_on_ranks(self, names: tuple[str, ...]) -> None:
        first, *others = [tuple(text.decode().splitlines()) for text in self._gather("\n".join(names).encode())]
        for other in others:
            if other != first:
                raise _other_names(first, other, " on another rank")
        taken = sorted(set(names) & _TAKEN)
        if taken:
            raise UsageError(f"LossOutput.metrics: {taken[0]!r} is a metric of the trainer", "give it another name")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in order."""
        return self._names or ()

    def take(self) -> Tensor:
        """Returns the sums since the last call: total, weight, and each metric times its weight; (K,) float64."""
        added = self._passes[0] if len(self._passes) == 1 else torch.stack(self._passes).sum(0)
        self._passes.clear()
        return added

    def means(self, sums: Tensor) -> Tensor:
        """Returns the loss and the metrics of ``sums`` (K,), each divided by the weight; (K - 1,), 0 if it is 0."""
        weight = sums[1]
        values = torch.cat([sums[:1], sums[2:]])
        return torch.where(weight > 0, values / weight, torch.zeros_like(values))

    def named(self, prefix: str, means: list[float]) -> Mapping[str, float]:
        """Returns the values of ``means`` by the names of the loss and the metrics."""
        return dict(zip((f"{prefix}/{name}" for name in ("loss", *self.names)), means, strict=True))


def _other_names(expected: tuple[str, ...], found: tuple[str, ...], where: str = "") -> UsageError:
    texts = [", ".join(names) or "none" for names in (expected, found)]
    problem = f"LossOutput.metrics: expected {texts[0]}, found {texts[1]}{where}"
    return UsageError(problem, "return metrics of the same names in each pass and on each rank")
