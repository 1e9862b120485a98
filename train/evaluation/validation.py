"""Computes the policy's loss on held-out episodes: the exact mean over all frames that the ranks read.

If there are several datasets, each is validated by itself too, with as many batches as the others.

If the run averages its weights (EMA), the average is validated.

Every validation reads the same frames, and seeds the random generators in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from vlapipe.train.data.device_copy import to_device
from vlapipe.train.data.loader import DatasetPart, Loader
from vlapipe.train.faults import explain_device_errors
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ranks import agree, gather_bytes
from vlapipe.train.parallel.rng import seed_generators
from vlapipe.train.policies.loss_module import LossSums
from vlapipe.train.run import Run

__all__ = ["evaluate"]


def evaluate(run: Run) -> Mapping[str, float]:
    """Returns the loss and the policy's metrics, by ``val/<name>``; empty if the val split has no frame.

    Of each dataset, each rank reads ``eval_batches`` batches, which are spread evenly over the dataset's val split. All
    ranks read equally many: a sample that fills a short batch up counts nothing. If several datasets have a val split,
    the loss of each is ``val/loss/<dataset>``, and ``val/loss`` estimates the mean over the frames of all of them.
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
    for module, mode in modes.items():  # a frozen part may have been in evaluation mode before
        module.training = mode
    found = sums.named("val", means)
    run.val_loss = found["val/loss"]
    return {**found, **{f"val/loss/{part.name}": loss for part, loss in zip(parts, of_parts, strict=False)}}


def _sums_of(run: Run, loader: Loader, part: DatasetPart, sums: LossSums) -> Tensor:
    """Returns total, weight and metrics of a dataset's frames over all ranks: of those read, scaled to all of them."""
    a_step = run.config.data.batch_size * run.ranks.world_size
    num_batches = -(-part.num_frames // a_step)
    most = min(run.config.eval.eval_batches or num_batches, num_batches)
    numbers = [i * num_batches // most for i in range(most)]
    batches = loader.at_steps(numbers, part)
    for i in range(most):
        with agree(run.ranks):
            batch = to_device(next(batches), run.ranks.device)
        seed_generators(run.config.seed, "validation", step=i, rank=run.ranks.rank)
        with run.ranks.during("validation"), explain_device_errors(run), autocast(run.precision, run.ranks.device):
            sums.add(run.module(batch))
    num_read = sum(min(a_step, part.num_frames - number * a_step) for number in numbers)
    return run.strategy.mean(sums.take()) * (part.num_frames / num_read)
