"""torch's random generators: seeded differently on each rank, kept in a checkpoint, put back exactly.

A policy that draws from Python's or NumPy's generators is not resumed exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from vlapipe.train.distributed import Ranks, gather_bytes

__all__ = ["gather_rng", "restore_rng", "seed_rng"]


def seed_rng(seed: int, ranks: Ranks, *, step: int = 0) -> None:
    """Give this rank a sequence of its own."""
    digest = hashlib.blake2b(f"vlapipe rng {seed} {step} {ranks.rank}".encode(), digest_size=8).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


def gather_rng(ranks: Ranks) -> dict[str, Tensor]:
    """Every rank's generator states as uint8, by ``rank<r>/cpu`` and ``rank<r>/cuda``; a collective."""
    states = {"cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(ranks.device)
    out: dict[str, Tensor] = {}
    for kind, state in states.items():
        parts = gather_bytes(state.numpy().tobytes(), ranks)
        out |= {f"rank{r}/{kind}": torch.tensor(list(part), dtype=torch.uint8) for r, part in enumerate(parts)}
    return out


def restore_rng(states: Mapping[str, Tensor], ranks: Ranks, *, seed: int, step: int) -> None:
    """Put this rank's generators back; a rank that the checkpoint does not know gets a sequence of its own."""
    if f"rank{ranks.rank}/cpu" not in states:
        seed_rng(seed, ranks, step=step)
        return
    torch.set_rng_state(states[f"rank{ranks.rank}/cpu"])
    if ranks.device.type == "cuda" and f"rank{ranks.rank}/cuda" in states:
        torch.cuda.set_rng_state(states[f"rank{ranks.rank}/cuda"], ranks.device)
