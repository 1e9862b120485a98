"""Computes the policy's loss on held-out episodes: the exact mean over all frames that the ranks read.

If the run averages its weights (EMA), the average is validated.

Every validation reads the same frames, and seeds the random generators in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch

from vlapipe.train.data.device_copy import to_device
from vlapipe.train.faults import explain_device_errors
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ranks import agree, gather_bytes
from vlapipe.train.parallel.rng import seed_generators
from vlapipe.train.policies.loss_module import LossSums
from vlapipe.train.run import Run

__all__ = ["evaluate"]


def evaluate(run: Run) -> Mapping[str, float]:
    """Returns the loss and the policy's metrics, by ``val/<name>``; empty if the val split has no frame.

    Each rank reads ``eval_batches`` batches, which are spread evenly over the val split. All ranks read equally many:
    a sample that fills a short batch up counts nothing.
    """
    if run.val_loader is None:
        return {}
    num_batches = -(-run.val_loader.num_frames // (run.config.data.batch_size * run.ranks.world_size))
    most = min(run.config.eval.eval_batches or num_batches, num_batches)
    batches = run.val_loader.at_steps([i * num_batches // most for i in range(most)])
    sums = LossSums(partial(gather_bytes, ranks=run.ranks))
    modes = {module: module.training for module in run.policy.modules()}
    run.policy.eval()
    with run.log.aside("validation"), run.averaged(), torch.no_grad():
        for i in range(most):
            with agree(run.ranks):
                batch = to_device(next(batches), run.ranks.device)
            seed_generators(run.config.seed, "validation", step=i, rank=run.ranks.rank)
            with (
                run.ranks.during("validation"),
                explain_device_errors(run),
                autocast(run.precision, run.ranks.device),
            ):
                sums.add(run.module(batch))
        means = sums.means(run.strategy.mean(sums.take())).tolist()
    for module, mode in modes.items():  # a frozen part may have been in evaluation mode before
        module.training = mode
    found = sums.named("val", means)
    run.val_loss = found["val/loss"]
    return found
