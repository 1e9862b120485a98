"""Finds the largest batch that fits into a GPU's memory, and the accumulation that keeps the samples of a step.

The search makes real steps on batches of zeros, by doubling and then by halving the interval. The result is remembered,
for the policy, the shapes of a sample, the options that change memory, and the GPU.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch, SampleSpec, batch_entries

__all__ = ["blank_batch", "is_within_memory", "largest_that_fits", "remembered", "require_gpu", "split_of_step"]

_FILE = "batch_sizes.json"
_MOST = 4096
_SHARE = 0.95  # of the GPU's memory; the allocator needs some of it for pieces that do not fit


def require_gpu(config: TrainConfig, device: torch.device) -> None:
    """Refuse the search where it has no meaning.

    Raises:
        UsageError: the device is a CPU, or the ranks share one copy of the policy.
    """
    if device.type != "cuda":
        raise UsageError("--batch-size auto: needs a GPU; a CPU's memory has no firm limit", "give a number")
    if config.parallel.kind != "ddp":
        cure = "give a number; a step that runs out of memory says what would fit"
        raise UsageError(f"--batch-size auto: searches for parallel ddp, not {config.parallel.kind}", cure)


def largest_that_fits(fits: Callable[[int], bool], most: int = _MOST) -> int:
    """Returns the largest batch size up to ``most`` that fits; 0 if not even one sample does."""
    good, bad = 0, 1
    while bad <= most and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def split_of_step(samples: int, most: int) -> tuple[int, int]:
    """Returns the batch size and the accumulation of one rank that make ``samples`` a step, with the largest batch."""
    batch_size = max(size for size in range(1, min(samples, most) + 1) if samples % size == 0)
    return batch_size, samples // batch_size


def blank_batch(spec: SampleSpec, batch_size: int, device: torch.device) -> Batch:
    """Returns a batch of zeros on the device, with the shapes and types that the loader gives."""
    batch: Batch = {}
    for key, entry in batch_entries(spec).items():
        dtype = torch.from_numpy(np.zeros((), entry.dtype)).dtype
        batch[key] = torch.zeros((batch_size, *entry.shape), dtype=dtype, device=device)
        if key.startswith("observation.images.") and not key.endswith("_is_pad"):
            batch[key] = batch[key].permute(0, 1, 4, 2, 3)
    return batch | {"task": ["pick up the cup"] * batch_size}


def is_within_memory(step: Callable[[], object], device: torch.device) -> bool:
    """Whether ``step`` runs within most of the GPU's memory; whatever it used is freed."""
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_reserved(device) <= _SHARE * torch.cuda.get_device_properties(device).total_memory
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def remembered(key: Mapping[str, Any], find: Callable[[], int]) -> int:
    """Returns the number that ``find`` returned for ``key`` before, on this machine; else finds and remembers it."""
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlapipe" / _FILE
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(cache.read_text(encoding="utf-8"))
    if isinstance(known, dict) and isinstance(known.get(name), int):
        return known[name]
    found = find()
    with contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(cache, json.dumps({**(known if isinstance(known, dict) else {}), name: found}).encode())
    return found
