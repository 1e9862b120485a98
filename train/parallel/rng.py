"""Seeds the random generators before each use of them, so that a resume needs no saved state.

The seed is a hash of the run's seed, the use (training, validation), the step, the rank and the pass within the step.
So dropout and noise are a function of the place in the run: no rank, no step and no validation shares numbers with
another, whatever a policy drew before.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

__all__ = ["seed_generators"]


def seed_generators(seed: int, use: str, *, step: int, rank: int, part: int = 0) -> None:
    """Seed the generators of torch (CPU and current GPU), NumPy and Python. ``part`` is the pass within the step."""
    key = f"vlapipe rng {seed} {use} {step} {rank} {part}"
    hashed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    torch.default_generator.manual_seed(hashed)  # a thirtieth of the time of torch.manual_seed, which tries all devices
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(hashed)
    np.random.seed(hashed % 2**32)  # noqa: NPY002 - a policy may draw from this generator
    random.seed(hashed)
