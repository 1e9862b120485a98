"""Validates the policy on held-out episodes: its loss, and the error of its actions in the units of the data.

The loss is the exact mean over all frames that the ranks read. If there are several datasets, each is validated by
itself too, with as many batches as the others. If the run averages its weights (EMA), the average is validated.

Every validation reads the same frames, and seeds the random generators in the same way.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.device_copy import to_device
from vlapipe.train.data.loader import DatasetPart, Loader
from vlapipe.train.evaluation.action_error import ActionErrors, Dimensions, Figures, recorded_actions
from vlapipe.train.evaluation.yardsticks import Yardsticks
from vlapipe.train.faults import explain_device_errors
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ranks import agree, gather_bytes
from vlapipe.train.parallel.rng import seed_generators
from vlapipe.train.policies.loss_module import LossSums
from vlapipe.train.report.outputs import VALIDATION_FILE
from vlapipe.train.run import Run

__all__ = ["Validation"]

_MOST_ACTED_ON = 8  # batches of a dataset: acting may cost much more than the loss
_MOST_TASKS = 200


class Validation:
    """The validations of one run. What does not change from one to the next is computed in the first."""

    def __init__(self) -> None:
        self._others: dict[str, Tensor] | None = None  # sums of the yardsticks, over all ranks
        self._dimensions: Dimensions | None = None
        self._acts = True

    def __call__(self, run: Run) -> Mapping[str, float]:
        """Returns the loss, the policy's metrics and its action errors, as ``val/<name>``; empty without a val frame.

        Of each dataset, each rank reads ``eval_batches`` batches, which are spread evenly over the dataset's val split.
        All ranks read equally many: a sample that fills a short batch up counts nothing. If several datasets have a val
        split, the loss of each is ``val/loss/<dataset>``, and ``val/loss`` estimates the mean over the frames of all.
        The policy acts on up to 8 of the batches; ``Figures`` says what becomes of that.
        """
        if run.val_loader is None:
            return {}
        sums = LossSums(partial(gather_bytes, ranks=run.ranks))
        modes = {module: module.training for module in run.policy.modules()}
        run.policy.eval()
        with run.log.aside("validation"), run.averaged(), torch.no_grad():
            parts = [part for part in run.val_loader.parts if part.num_frames]
            by_part = torch.stack([_sums_of(run, run.val_loader, part, sums) for part in parts])
            means = sums.means(by_part.sum(0)).tolist()
            losses = [sums.means(of_part)[0] for of_part in by_part]
            of_parts = torch.stack(losses).tolist() if len(parts) > 1 else []
            acted = self._action_errors(run, run.val_loader, parts) if self._acts else {}
        for module, mode in modes.items():  # a frozen part may have been in evaluation mode before
            module.training = mode
        found = sums.named("val", means)
        run.val_loss = found["val/loss"]
        of_parts_by_name = {f"val/loss/{part.name}": loss for part, loss in zip(parts, of_parts, strict=False)}
        return {**found, **of_parts_by_name, **acted}

    def _action_errors(self, run: Run, loader: Loader, parts: list[DatasetPart]) -> Mapping[str, float]:
        """Let the policy act on some batches; write and say how far its actions are from the recorded ones."""
        if self._dimensions is None:
            self._dimensions = Dimensions.of(loader.described(loader.spec))
        tasks = loader.instructions[:_MOST_TASKS]
        periods = self._dimensions.periods
        errors = ActionErrors(tasks, periods)
        yardsticks, others = None, dict[str, ActionErrors]()
        if self._others is None:
            with agree(run.ranks):
                yardsticks = Yardsticks(run.config, "val")
        for part in parts:
            for number, batch in enumerate(_batches(run, loader, part, _MOST_ACTED_ON)):
                seed_generators(run.config.seed, "validation", step=number, rank=run.ranks.rank)
                actions = _actions(run, batch)
                recorded, counts = recorded_actions(loader.spec, batch)
                if not isinstance(actions, Tensor) or actions.shape != recorded.shape:
                    found = tuple(actions.shape) if isinstance(actions, Tensor) else type(actions).__name__
                    why = f"act gives {found}, expected the chunk (B, H, A) = {tuple(recorded.shape)}"
                    run.console.say(
                        f"the action error is not measured: {'act is not written' if actions is None else why}"
                    )
                    self._acts = False
                    return {}
                errors.add(actions.float(), recorded, counts, batch["task"])
                answers = {} if yardsticks is None else yardsticks.answers(batch)
                for name, answer in answers.items():
                    of_name = others.setdefault(name, ActionErrors(tasks, periods))
                    of_name.add(answer.to(recorded.device), recorded, counts, batch["task"])
        if self._others is None:
            self._others = {name: _over_ranks(run, of) for name, of in others.items()}
        sums = {"policy": _over_ranks(run, errors), **self._others}
        figures = Figures(
            dimensions=self._dimensions,
            tasks=errors.tasks,
            sums={name: each.cpu().numpy() for name, each in sums.items()},
        )
        if run.ranks.is_first:
            for sentence in figures.sentences():
                run.console.say(f"validation at step {run.step}: {sentence}")
            text = json.dumps({"step": run.step, **figures.to_json()}, indent=1) + "\n"
            write_bytes(run.config.out / VALIDATION_FILE, text.encode())
        return figures.metrics("val")


def _actions(run: Run, batch: Batch) -> Any:
    """Returns what the policy's ``act`` gives, which may be anything; None if ``act`` is not implemented."""
    observation = {key: value for key, value in batch.items() if not key.startswith("action")}
    with (
        run.ranks.during("validation"),
        explain_device_errors(run),
        autocast(run.precision, run.ranks.device),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # of a long instruction, which the run has told
        try:
            return run.module(observation, acts=True)
        except NotImplementedError:
            return None


def _over_ranks(run: Run, errors: ActionErrors) -> Tensor:
    assert errors.sums is not None
    return run.strategy.mean(errors.sums)


def _sums_of(run: Run, loader: Loader, part: DatasetPart, sums: LossSums) -> Tensor:
    """Returns total, weight and metrics of a dataset's frames over all ranks: of those read, scaled to all of them."""
    a_step = run.config.data.batch_size * run.ranks.world_size
    for i, batch in enumerate(_batches(run, loader, part, run.config.eval.eval_batches)):
        seed_generators(run.config.seed, "validation", step=i, rank=run.ranks.rank)
        with run.ranks.during("validation"), explain_device_errors(run), autocast(run.precision, run.ranks.device):
            sums.add(run.module(batch))
    numbers = _numbers(run, part, run.config.eval.eval_batches)
    num_read = sum(min(a_step, part.num_frames - number * a_step) for number in numbers)
    return run.strategy.mean(sums.take()) * (part.num_frames / num_read)


def _numbers(run: Run, part: DatasetPart, most: int) -> list[int]:
    """The steps through a dataset's frames that are read: up to ``most``, evenly spread; 0 is all of them."""
    num_batches = -(-part.num_frames // (run.config.data.batch_size * run.ranks.world_size))
    count = min(most or num_batches, num_batches)
    return [i * num_batches // count for i in range(count)]


def _batches(run: Run, loader: Loader, part: DatasetPart, most: int) -> Iterator[Batch]:
    numbers = _numbers(run, part, most)
    batches = loader.at_steps(numbers, part)
    for _ in numbers:
        with agree(run.ranks):
            batch = to_device(next(batches), run.ranks.device)
        yield batch
