"""Seeds, saves and restores random generators. Each rank seeds torch differently; a resume restores torch exactly.

Validation seeds the generators of torch, NumPy and Python, and restores the states of training afterwards. A checkpoint
does not save Python's and NumPy's generators. A policy that draws from these generators does not resume exactly.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from vlapipe.train.parallel.ranks import Ranks, gather_bytes

__all__ = ["gather_rng", "own_randomness", "restore_rng", "seed_rng"]


def seed_rng(seed: int, ranks: Ranks, *, step: int = 0) -> None:
    """Seed torch's generators from seed, step and rank, so that every rank draws different numbers."""
    torch.manual_seed(_hash_of(f"{seed} {step} {ranks.rank}"))


def _hash_of(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"vlapipe rng {key}".encode(), digest_size=8).digest(), "little")


@contextlib.contextmanager
def own_randomness(ranks: Ranks) -> Iterator[Callable[[str], None]]:
    """Yield a function that seeds all generators by a key and the rank. The end of the block restores their states."""
    on_gpu = ranks.device.type == "cuda"
    gpu_state = torch.cuda.get_rng_state(ranks.device) if on_gpu else None
    cpu_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002

    def seed_for(key: str) -> None:
        seed = _hash_of(f"{key} {ranks.rank}")
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - a policy may draw from this generator
        random.seed(seed)

    try:
        yield seed_for
    finally:
        torch.set_rng_state(cpu_state)
        if gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state, ranks.device)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def gather_rng(ranks: Ranks) -> dict[str, Tensor]:
    """Returns every rank's generator states as uint8, under ``rank<r>/cpu`` and ``rank<r>/cuda``; a collective."""
    states = {"cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(ranks.device)
    out: dict[str, Tensor] = {}
    for kind, state in states.items():
        parts = gather_bytes(state.numpy().tobytes(), ranks)
        out |= {f"rank{r}/{kind}": torch.tensor(list(part), dtype=torch.uint8) for r, part in enumerate(parts)}
    return out


def restore_rng(states: Mapping[str, Tensor], ranks: Ranks, *, seed: int, step: int) -> None:
    """Restore this rank's generators. If the checkpoint has no state of this rank, the rank gets a new seed."""
    if f"rank{ranks.rank}/cpu" not in states:
        seed_rng(seed, ranks, step=step)
        return
    torch.set_rng_state(states[f"rank{ranks.rank}/cpu"])
    if ranks.device.type == "cuda" and f"rank{ranks.rank}/cuda" in states:
        torch.cuda.set_rng_state(states[f"rank{ranks.rank}/cuda"], ranks.device)
