"""Turns the faults of a step into one clear line: numbers that are not finite, lack of memory."""

from __future__ import annotations

import contextlib
import math
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence

import torch

from vlapipe.schemas.errors import StoppedError, UsageError, VlapipeError
from vlapipe.train.batch_size import Room, divisors, measure_room, with_batch_size
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.parallel.ranks import agree, gather_bytes
from vlapipe.train.report.step_log import StepValues
from vlapipe.train.run import Run

__all__ = ["explain_device_errors", "stop_if_bad"]

# What torch and oneDNN say on a CPU without memory.
_NO_HOST_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "could not create a primitive",
    "could not create a memory",
)
# What torch says if no kernel that is switched on fits the arguments.
_NO_ATTENTION = ("No viable backend for scaled_dot_product_attention", "No available kernel")
_NAMED = 20  # maximum number of frames that a message names; the message counts the others


def stop_if_bad(run: Run, values: StepValues) -> None:
    """Stop the run after a step whose loss or gradient is not finite. The optimizer has not moved since that step.

    Raises:
        VlapipeError: always. The message names the step and the frames of its batches.
    """
    own_is_bad = not math.isfinite(values.own_loss)
    with agree(run.ranks):
        run.saving.finish()  # the checkpoint in progress is of a good step
        named = _suspects(_batches_again(run, values.data_position))
    of_ranks = [text.decode() for text in gather_bytes(named.encode(), run.ranks)]
    with agree(run.ranks):
        cure = "look at these frames with vlapipe inspect --episode; if they are good, lower learning_rate"
        problem = ""
        if own_is_bad:
            problem = f"the loss is {values.own_loss}; the weights have not moved; {named}"
        elif math.isfinite(values.loss):
            what = f"the norm of the gradient is {values.grad_norm}"
            if math.isfinite(values.grad_norm):
                what, cure = "the weight of the loss is negative or not finite", "see LossOutput in docs/policies.md"
            several = len(of_ranks) > 1
            texts = [f"rank {rank}: {text}" if several else text for rank, text in enumerate(of_ranks)]
            problem = f"{what}; the weights have not moved; {'; '.join(texts)}"
        if problem:  # else another rank's batch is the cause, and that rank says so
            raise VlapipeError(f"step {values.step}: {problem}", cure)


def _batches_again(run: Run, data_position: Mapping[str, int]) -> list[Batch]:
    """Read the batches of a step again. Their order and augmentation depend only on the loader's position."""
    run.loader.load_state_dict(dict(data_position))
    batches = run.loader.every_other(0, 1)
    return [next(batches) for _ in range(run.config.optim.grad_accum)]


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
            bad |= ~torch.isfinite(value).reshape(len(value), -1).all(dim=1).cpu()
    return bad


def _frames(batch: Batch, chosen: torch.Tensor | None) -> list[tuple[int, int]]:
    pairs = list(zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True))
    return pairs if chosen is None else [pair for pair, take in zip(pairs, chosen.tolist(), strict=True) if take]


@contextlib.contextmanager
def explain_device_errors(run: Run) -> Iterator[None]:
    """Turn an error of the GPU or the CPU into one line: no memory, or no kernel for the attention that was asked for.

    Raises:
        StoppedError: the block ran out of memory.
        UsageError: the policy's attention cannot use the kernel of ``--attention``.
    """
    config = run.config
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if config.attention != "auto" and any(text in str(error) for text in _NO_ATTENTION):
            problem = f"--attention {config.attention}: the policy's attention cannot use this kernel"
            cure = "--attention auto takes one that fits the policy's masks, head sizes and number formats"
            raise UsageError(problem, cure) from None
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or any(text in str(error) for text in _NO_HOST_MEMORY)):
            raise
        tried = re.search(r"you tried to allocate \d+ bytes", str(error))
        first = (tried[0] if tried else str(error).split(". ")[0]) or "out of memory"
        whose = "the GPU's memory" if on_gpu else "this machine's memory"
        room = _room_on_gpu(run, error) if on_gpu else None
        problem = f"{whose} does not hold batch_size {config.data.batch_size}: {first}"
        raise StoppedError(f"{problem}; {room}" if room else problem, _smaller(config, room)) from None


def _smaller(config: TrainConfig, room: Room | None) -> str:
    """Returns what needs less memory. A smaller batch has more passes, so that a step sees the same samples."""
    batch_size = config.data.batch_size
    limit = room.num_samples if room is not None and room.num_samples < batch_size else batch_size // 2
    ways = []
    if sizes := [size for size in divisors(batch_size * config.optim.grad_accum) if size <= limit]:
        smaller = with_batch_size(config, sizes[-1])
        ways = [f"--batch-size {sizes[-1]} --grad-accum {smaller.optim.grad_accum}"]
        ways += ["--batch-size auto"] if room is not None else []
    ways += [] if config.gradient_checkpointing else ["--gradient-checkpointing"]
    ways += ["smaller images (--image-resize-height, --image-resize-width)"]
    return f"try {', or '.join(ways)}"


def _room_on_gpu(run: Run, error: BaseException) -> Room | None:
    """Measure what fits, once the tensors of the failed pass are gone; ``None`` if ranks share the policy."""
    if run.strategy.splits_blocks:
        return None
    device = run.ranks.device
    free, total = torch.cuda.mem_get_info(device)
    traceback.clear_frames(error.__traceback__)
    run.optimizer.zero_grad(set_to_none=True)
    batch = _batches_again(run, run.loader.state_dict())[0]
    return measure_room(run.policy, run.optimizer, batch, run.precision, device, used=total - free)
