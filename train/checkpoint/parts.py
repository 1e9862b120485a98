"""The parts of a run that a checkpoint saves. To save more of a run, add a part to ``PARTS``.

``snapshot`` is short and a collective: it copies the part to the CPU, so that the run can go on while the copy is being
written. ``restore`` is a collective too. A part that the run does not have (no EMA) has no snapshot.

The learning rate and the random numbers need no part: both are functions of the options and the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlapipe.schemas.errors import DamageError, VlapipeError
from vlapipe.train.checkpoint.commit import PartState
from vlapipe.train.checkpoint.files import StoredPart
from vlapipe.train.checkpoint.resumed import same_weights
from vlapipe.train.checkpoint.saved_policy import require_fit
from vlapipe.train.optim.optimizer import load_optimizer_tensors, optimizer_tensors
from vlapipe.train.run import Run

__all__ = ["PARTS", "Part"]


@dataclass(frozen=True)
class Part:
    """How a part of the run is saved and restored."""

    snapshot: Callable[[Run], PartState | None]
    restore: Callable[[Run, StoredPart], None]


def _full_state(run: Run, part: str, named: Mapping[str, Any]) -> PartState:
    """Returns CPU copies of the tensors that this rank writes; a collective."""
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise VlapipeError(
                f"{part} state {name!r} cannot be saved: it is a {type(value).__name__}",
                "hold what must be saved in buffers",
            )
    # safetensors stores tensors in row-major order only
    return PartState(tensors={name: copy.contiguous() for name, copy in run.strategy.full_state(named).items()})


def _policy(run: Run) -> PartState:
    return _full_state(run, "policy", run.policy.state_dict())


def _restore_policy(run: Run, stored: StoredPart) -> None:
    here = run.policy.state_dict()
    require_fit({name: tensor.shape for name, tensor in here.items()}, stored.tensors, stored.path)
    run.strategy.load_state(here, stored.tensors.read)
    if run.ema is not None:
        run.ema.restart()  # what the part "ema" does not have, because the run had no EMA or trained other parameters


def _ema(run: Run) -> PartState | None:
    return None if run.ema is None else _full_state(run, "ema", run.ema.named_tensors())


def _restore_ema(run: Run, stored: StoredPart) -> None:
    if run.ema is not None:
        here = {name: tensor for name, tensor in run.ema.named_tensors().items() if name in stored.tensors}
        run.strategy.load_state(here, stored.tensors.read)


def _optimizer(run: Run) -> PartState:
    return _full_state(run, "optimizer", optimizer_tensors(run.optimizer, run.policy))


def _restore_optimizer(run: Run, stored: StoredPart) -> None:
    parameters = dict(run.policy.named_parameters())

    def empty(name: str) -> Tensor:
        parameter = parameters[name.rpartition("|")[0]]
        shape = stored.tensors.shape(name)
        # An entry of the parameter's shape is split over the ranks as the parameter is.
        return torch.zeros_like(parameter) if shape and shape == parameter.shape else torch.zeros(shape)

    try:
        # AdamW makes its state in its first step. Here the state is made first, then filled.
        load_optimizer_tensors(run.optimizer, run.policy, {name: empty(name) for name in stored.tensors})
        run.strategy.load_state(optimizer_tensors(run.optimizer, run.policy), stored.tensors.read)
    except (KeyError, ValueError) as error:
        raise DamageError(f"{stored.path}: the optimizer's state does not fit the policy: {error}") from None


def _loader(run: Run) -> PartState:
    return PartState(values=run.loader.state_dict())


def _restore_loader(run: Run, stored: StoredPart) -> None:
    state = dict(stored.values)
    if same_weights(stored.options, run.config):
        # The loader compares weights by their text. The text may differ only because a dataset has another path now.
        state["weights"] = run.loader.state_dict()["weights"]
    run.loader.load_state_dict(state)


def _counters(run: Run) -> PartState:
    return PartState(values={"val_loss": run.val_loss, "drawn": run.drawn.total.tolist()})


def _restore_counters(run: Run, stored: StoredPart) -> None:
    run.val_loss = stored.values.get("val_loss")
    drawn = stored.values.get("drawn", [])
    if len(drawn) == run.drawn.size:  # an earlier version counted nothing
        run.drawn.total.copy_(torch.tensor(drawn, dtype=torch.float64))


PARTS: Mapping[str, Part] = {
    "policy": Part(_policy, _restore_policy),
    "ema": Part(_ema, _restore_ema),
    "optimizer": Part(_optimizer, _restore_optimizer),
    "loader": Part(_loader, _restore_loader),
    "counters": Part(_counters, _restore_counters),
}
