"""Turns the faults of a step into one clear line: a wrong loss, numbers that are not finite, lack of memory."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vlapipe.schemas.errors import StoppedError, UsageError, VlapipeError
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.parallel.ranks import agree
from vlapipe.train.run import Run

__all__ = ["explain_out_of_memory", "require_finite", "require_loss"]

# What torch and oneDNN say on a CPU without memory.
_NO_HOST_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "could not create a primitive",
    "could not create a memory",
)
_NAMED = 20  # maximum number of frames that a message names; the message counts the others


def require_loss(run: Run, loss: Any, *, to_train: bool = True) -> torch.Tensor:
    """Returns the result of the policy's ``loss`` as a scalar tensor.

    Raises:
        UsageError: the result is not a floating-point scalar, or it has no gradient although ``to_train`` is True.
    """
    problem, cure = "", ""
    if not isinstance(loss, torch.Tensor):
        problem, cure = f"expected a scalar tensor, found a {type(loss).__name__}", "return the total loss alone"
    elif loss.numel() != 1:
        problem, cure = f"expected a scalar, found a tensor of shape {tuple(loss.shape)}", "return its mean()"
    elif not loss.is_floating_point():
        problem, cure = f"expected a floating-point scalar, found {loss.dtype}", "return a float tensor"
    elif to_train and not loss.requires_grad:
        problem = "it has no gradient"
        cure = "compute it from the policy's parameters, without no_grad, detach or item"
    if problem:
        raise UsageError(f"policy {run.policy_name}: loss(batch): {problem}", cure)
    scalar: torch.Tensor = loss.reshape(())
    return scalar


def require_finite(run: Run, loss: float, own_loss: float, grad_norm: float, batches: Sequence[Batch]) -> None:
    """Stop the run before the optimizer changes the weights, if the loss or the gradient is not finite.

    ``loss`` is the sum over all ranks, ``own_loss`` is this rank's loss.

    Raises:
        VlapipeError: the loss or the gradient is not finite. The message names the step and the frames of its batches.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    with agree(run.ranks):
        # If another rank's batch caused the fault, only that rank raises the error.
        if math.isfinite(loss) or not math.isfinite(own_loss):
            what = f"loss is {own_loss}" if not math.isfinite(own_loss) else f"norm of the gradient is {grad_norm}"
            cure = "look at these frames with vlapipe inspect --episode; if they are good, lower learning_rate"
            raise VlapipeError(
                f"step {run.step + 1}: the {what}; the weights have not moved; {_suspects(batches)}", cure
            )


def _suspects(batches: Sequence[Batch]) -> str:
    """Returns a text that names the samples with a number that is not finite, or all samples if there is none."""
    bad = [pair for batch in batches for pair in _frames(batch, _not_finite(batch))]
    found = bad or [pair for batch in batches for pair in _frames(batch, None)]
    named = ", ".join(f"{episode}:{frame}" for episode, frame in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    what = "numbers that are not finite are in" if bad else "its batch held"
    return f"{what} episode:frame {named}{more}"


def _not_finite(batch: Batch) -> torch.Tensor:
    """Returns ``(B,)`` bool: True for each sample that has a number that is not finite."""
    bad = torch.zeros(len(batch["task"]), dtype=torch.bool)
    for value in batch.values():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            bad |= ~torch.isfinite(value).flatten(1).all(dim=1).cpu()
    return bad


def _frames(batch: Batch, chosen: torch.Tensor | None) -> list[tuple[int, int]]:
    pairs = list(zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True))
    return pairs if chosen is None else [pair for pair, take in zip(pairs, chosen.tolist(), strict=True) if take]


@contextlib.contextmanager
def explain_out_of_memory(config: TrainConfig) -> Iterator[None]:
    """Turn an out-of-memory error of the GPU or the CPU into advice.

    Raises:
        StoppedError: the block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or any(text in str(error) for text in _NO_HOST_MEMORY)):
            raise
        half = max(1, config.data.batch_size // 2)
        ways = [f"--batch-size {half} --grad-accum {config.optim.grad_accum * 2}"] if config.data.batch_size > 1 else []
        ways += [] if config.gradient_checkpointing else ["--gradient-checkpointing"]
        ways += ["smaller images (--image-resize-height, --image-resize-width)"]
        whose = "the GPU's memory" if on_gpu else "this machine's memory"
        tried = re.search(r"you tried to allocate \d+ bytes", str(error))
        first = tried[0] if tried else str(error).split(". ")[0]
        raise StoppedError(
            f"{whose} does not hold batch_size {config.data.batch_size}: {first or 'out of memory'}",
            f"try {', or '.join(ways)}",
        ) from None
