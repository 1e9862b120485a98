"""Finds how many samples of a pass fit into the GPU's memory, by real passes; the answer is remembered.

``--batch-size auto`` keeps the samples of a step: a rank's ``batch_size * grad_accum`` are cut into fewer or more
passes. So the batch is the largest divisor of that number that fits, and the gradient stays the same.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.device_copy import to_device
from vlapipe.train.optim.ema import EMA
from vlapipe.train.optim.optimizer import make_optimizer
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ranks import Ranks, agree, gather_bytes
from vlapipe.train.policies.base import blocks_of
from vlapipe.train.policies.loss_module import LossOf
from vlapipe.train.policies.recompute import recompute_in_backward

__all__ = [
    "Memory",
    "Room",
    "Trial",
    "digest_of_step",
    "divisors",
    "fit_batch_size",
    "joined",
    "largest_that_fits",
    "measure_room",
    "repeated",
    "require_measurable",
    "with_batch_size",
]

_SHARE = 0.95  # of the GPU's memory; the rest is for fragments, and for buffers of libraries


def require_measurable(config: TrainConfig, ranks: Ranks) -> None:
    """Check that a batch size can be found here.

    Raises:
        UsageError: the ranks have no GPU, or share one policy.
    """
    cure = "give a number, for example --batch-size 32"
    if ranks.device.type != "cuda":
        raise UsageError("--batch-size auto: measures the memory of a GPU, and there is none here", cure)
    if ranks.world_size > 1 and config.parallel.kind != "ddp":
        problem = (
            f"--batch-size auto: tries the whole policy on each GPU, and --parallel {config.parallel.kind} splits it"
        )
        raise UsageError(problem, cure)


def fit_batch_size(
    config: TrainConfig,
    ranks: Ranks,
    precision: str,
    policy: nn.Module,
    batch: Batch,
    *,
    most: int,
    say: Callable[[str], None],
) -> TrainConfig:
    """Returns ``config`` with the largest batch size that fits on every rank. A collective.

    Args:
        config: its ``batch_size * grad_accum`` are the samples of a rank in a step.
        ranks: this process.
        precision: ``bf16`` or ``fp32``.
        policy: real steps move it, so throw it away.
        batch: the samples that the trials repeat.
        most: maximum batch size; the data has no larger one.
        say: prints a line.

    Raises:
        StoppedError: not even one sample fits.
    """
    began = time.perf_counter()
    gpu = torch.cuda.get_device_properties(ranks.device)
    memory = Memory(_cache_file(), digest_of_step(config, policy, batch, precision, [gpu.name, gpu.total_memory, most]))
    found = _least(memory.read(), ranks)  # None if one of the ranks does not know
    how = f"as found before, see {memory.file}"
    if found is None:
        with agree(ranks):
            trial = Trial(config, policy, batch, precision, ranks.device)
            with _share_of_memory(ranks.device):
                sizes = divisors(config.data.batch_size * config.optim.grad_accum)
                own = largest_that_fits([size for size in sizes if size <= most], trial)
            if own is None:
                raise _nothing_fits(ranks.device)
        found = _least(own, ranks)
        assert found is not None
        if ranks.local_rank == 0:
            memory.write(found)
        how = f"found in {time.perf_counter() - began:.0f} s"
    fitted = with_batch_size(config, found)
    passes = f"{fitted.optim.grad_accum} pass{'es' if fitted.optim.grad_accum > 1 else ''}"
    say(f"batch size {found} in {passes} a step: the largest that fits into {gpu.total_memory / 1e9:.0f} GB ({how})")
    return fitted


def with_batch_size(config: TrainConfig, batch_size: int) -> TrainConfig:
    """Returns ``config`` with ``batch_size``, and as many passes as keep the number of samples of a step."""
    num_samples = config.data.batch_size * config.optim.grad_accum
    return replace(
        config,
        data=replace(config.data, batch_size=batch_size, fit_batch_size=False),
        optim=replace(config.optim, grad_accum=num_samples // batch_size),
    )


def divisors(number: int) -> list[int]:
    """Returns the divisors of ``number``, the least first."""
    return [size for size in range(1, number + 1) if number % size == 0]


def largest_that_fits(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Returns the largest of ``sizes`` (rising) that fits, by bisection; ``None`` if the least does not fit.

    The least size is tried first, because its step makes the optimizer's state. The largest is next, because it often
    fits.
    """
    if not fits(sizes[0]):
        return None
    if fits(sizes[-1]):
        return sizes[-1]
    low, high = 0, len(sizes) - 1  # sizes[low] fits, sizes[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low]


class Trial:
    """Says whether a batch of some size fits, by a step of two passes with all that a run holds beside it."""

    def __init__(
        self, config: TrainConfig, policy: nn.Module, batch: Batch, precision: str, device: torch.device
    ) -> None:
        self._batch, self._precision, self._device = batch, precision, device
        self._num_ahead = config.data.prefetch_factor + 1  # batches on the device that wait for their step
        if config.gradient_checkpointing:
            recompute_in_backward(policy, blocks_of(policy))
        self._make: Callable[[], Any] = lambda: (
            LossOf(policy.to(device)),
            make_optimizer(policy, learning_rate=0.0, weight_decay=0.0),
            None if config.optim.ema is None else EMA(policy, decay=config.optim.ema),
        )
        self._made: Any = None

    def __call__(self, size: int) -> bool:
        """Returns whether ``size`` samples fit."""
        fits = True
        try:
            self._step(size)
        except torch.OutOfMemoryError:
            fits = False
        # The error has ended, and with it its frames and the tensors of the step.
        if self._made is not None:
            self._made[1].zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()
        return fits

    def _step(self, size: int) -> None:
        if self._made is None:
            self._made = self._make()
        module, optimizer, _ = self._made
        ahead = [to_device(repeated(self._batch, size), self._device) for _ in range(self._num_ahead)]
        for batch in ahead[:2]:  # the second pass has the first one's gradients beside it
            with autocast(self._precision, self._device):
                total, _, _ = module(batch)
            total.backward()
        optimizer.step()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a GPU's memory holds beside a batch, and what a sample of it takes, in bytes."""

    used: int  # by all processes, when the memory was full
    total: int
    held: int  # weights, gradients and optimizer
    of_sample: int  # in a pass

    @property
    def num_samples(self) -> int:
        """About how many samples fit."""
        return max(0, int((_SHARE * self.total - self.held) / max(1, self.of_sample)))

    def __str__(self) -> str:
        used, total, of_sample = self.used / 1e9, self.total / 1e9, self.of_sample / 1e6
        fit = f"a sample takes {of_sample:,.0f} MB, so about {self.num_samples} fit"
        return f"{used:.1f} of {total:.1f} GB were in use; {fit}"


def measure_room(
    policy: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    precision: str,
    device: torch.device,
    *,
    used: int,
) -> Room | None:
    """Measure passes of one and two samples, after a pass for which the memory was too small.

    Returns ``None`` if these do not fit either. The passes write no ``grad``, so that DDP's hooks do not run.
    """
    trained = [p for p in policy.parameters() if p.requires_grad]
    module = LossOf(policy)

    def peak_of(size: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        with autocast(precision, device):
            total, _, _ = module(to_device(repeated(batch, size), device))
        torch.autograd.grad(total, trained, allow_unused=True)
        return torch.cuda.max_memory_allocated(device) - before

    gc.collect()
    torch.cuda.empty_cache()
    try:
        peak_of(1)  # makes the libraries' buffers too
        of_sample = peak_of(2) - peak_of(1)
    except RuntimeError:
        return None
    num_copies = (trained[0].grad is None) + 2 * (not optimizer.state)  # what the first step has still to allocate
    held = torch.cuda.memory_allocated(device) + num_copies * sum(p.nbytes for p in trained)
    return Room(used=used, total=torch.cuda.mem_get_info(device)[1], held=held, of_sample=of_sample)


def joined(batches: Sequence[Batch]) -> Batch:
    """Returns the samples of all ``batches`` as one."""
    return {
        key: torch.cat([batch[key] for batch in batches])
        if isinstance(value, Tensor)
        else [each for batch in batches for each in batch[key]]
        for key, value in batches[0].items()
    }


def repeated(batch: Batch, size: int) -> Batch:
    """Returns ``size`` samples: those of ``batch``, over and over."""
    which = torch.arange(size) % len(batch["task"])
    return {
        key: value[which] if isinstance(value, Tensor) else [value[i] for i in which.tolist()]
        for key, value in batch.items()
    }


@contextlib.contextmanager
def _share_of_memory(device: torch.device) -> Iterator[None]:
    torch.cuda.set_per_process_memory_fraction(_SHARE, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _nothing_fits(device: torch.device) -> StoppedError:
    free, total = torch.cuda.mem_get_info(device)
    problem = (
        f"--batch-size auto: not even one sample fits; {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB are in use"
    )
    cure = (
        "try --gradient-checkpointing, smaller images (--image-resize-height, --image-resize-width), a smaller policy"
    )
    return StoppedError(problem, f"{cure}, or --parallel fsdp on several GPUs")


def _least(own: int | None, ranks: Ranks) -> int | None:
    """Returns the least number over the ranks; ``None`` if one has none. A collective."""
    numbers = [int(number) for number in gather_bytes(str(own or 0).encode(), ranks)]
    return min(numbers) or None


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlapipe" / "batch_sizes.json"


def digest_of_step(
    config: TrainConfig, policy: nn.Module, batch: Batch, precision: str, gpu: Sequence[str | int]
) -> str:
    """Returns a digest of all that the memory of a step depends on."""
    depends_on = {
        "policy": config.policy,
        "policy_args": dict(config.policy_args),
        "parameters": [[name, [*p.shape], str(p.dtype), p.requires_grad] for name, p in policy.named_parameters()],
        "samples": {key: [*value.shape[1:]] for key, value in batch.items() if isinstance(value, Tensor)},
        "samples_of_a_rank": config.data.batch_size * config.optim.grad_accum,
        "options": [config.gradient_checkpointing, config.attention, config.optim.ema is not None],
        "prefetch_factor": config.data.prefetch_factor,
        "precision": precision,
        "gpu": [*gpu],
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Memory:
    """Batch sizes that were found, by a digest of what they depend on. A file that cannot be used is left alone."""

    file: Path
    key: str

    def read(self) -> int | None:
        """Returns the batch size; ``None`` if it is not known."""
        found = self._all().get(self.key)
        return found if isinstance(found, int) and found > 0 else None

    def write(self, batch_size: int) -> None:
        """Remember ``batch_size``."""
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.file, json.dumps(self._all() | {self.key: batch_size}, indent=1).encode())

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
