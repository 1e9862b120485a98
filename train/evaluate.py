"""Computes the policy's loss on held-out episodes: the exact mean over all frames that the ranks read.

Every validation reads the same frames. Every validation also seeds the random generators in the same way, and then
restores the generators of training.
"""

from __future__ import annotations

from itertools import islice

import torch

from vlapipe.train.data.device_copy import to_device
from vlapipe.train.faults import require_loss
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ranks import agree, sum_of
from vlapipe.train.parallel.rng import own_randomness
from vlapipe.train.run import Run

__all__ = ["evaluate"]


def evaluate(run: Run) -> float | None:
    """Returns the mean loss over ``eval_batches`` batches a rank; None if the val split has no frame.

    The batches are spread evenly over the val split. The weight of a batch is its number of actions that are not
    padded, so the shorter last batch counts less.
    """
    if run.val_loader is None:
        return None
    # The number of batches counts the frames of all ranks, because some ranks may have no part of the last batch.
    num_batches = -(-run.val_loader.num_frames // (run.config.data.batch_size * run.ranks.world_size))
    most = run.config.eval.eval_batches or num_batches
    every = max(1, num_batches // most)
    total = count = 0.0
    run.policy.eval()
    # The loop calls the policy directly, not DDP, because the ranks may read different numbers of batches.
    with torch.inference_mode(), agree(run.ranks), own_randomness(run.ranks) as seed_for:
        for i, batch in enumerate(islice(run.val_loader.every_other(0, every), most)):
            seed_for(f"{run.config.seed} validation {i}")
            weight = float((~batch["action_is_pad"]).sum())
            on_device = to_device(batch, run.ranks.device)
            with autocast(run.precision, run.ranks.device):
                loss = require_loss(run, run.policy.loss(on_device), to_train=False)  # type: ignore[operator]
            total += float(loss) * weight
            count += weight
    run.policy.train()
    total, count = sum_of([total, count], run.ranks)
    run.val_loss = total / count if count else None
    return run.val_loss
