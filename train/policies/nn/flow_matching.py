"""Flow matching (Lipman et al. 2022): draws times to train at, and integrates a velocity from noise to data.

A point of the path is ``x_t = t * data + (1 - t) * noise``: noise at time 0, data at time 1. A policy learns the
velocity ``data - noise`` there. Shape letter: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from vlapipe.train.data.batch_layout import Batch

__all__ = ["METHODS", "NOISE", "TIME_KINDS", "Method", "TimeKind", "first_noise", "integrate", "sample_time"]

TimeKind = Literal["beta", "uniform"]
Method = Literal["euler", "heun"]
TIME_KINDS: tuple[TimeKind, ...] = get_args(TimeKind)
METHODS: tuple[Method, ...] = get_args(Method)
NOISE = "noise"  # (B, H, A) float32, standard normal: a batch key of ``act``, which draws it if it is missing
_LATEST = 0.999  # of the times of ``beta``


def sample_time(kind: TimeKind, batch: int, device: torch.device) -> Tensor:
    """Returns a time for each sample, ``(B,)`` float32 within 0 and 1, from torch's own generator.

    ``beta`` draws early times more often, where the noise hides most of the data: pi0 (Black et al. 2024) draws
    ``1 - t / 0.999`` from Beta(1.5, 1). ``uniform`` draws all times alike.
    """
    drawn = torch.rand(batch, device=device)
    # The distribution function of Beta(1.5, 1) is x ** 1.5, which is inverted here.
    return _LATEST * (1 - drawn ** (1 / 1.5)) if kind == "beta" else drawn


def first_noise(batch: Batch, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns the batch's own noise; without one, noise of ``shape`` from torch's own generator."""
    noise: Tensor | None = batch.get(NOISE)
    return torch.randn(shape, device=device) if noise is None else noise


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int, method: Method) -> Tensor:
    """Follow the velocity from ``noise`` at time 0 to data at time 1, in ``steps`` equal steps.

    ``velocity`` gets points ``(B, ...)`` and their times ``(B,)``, and returns slopes ``(B, ...)``. ``euler`` calls
    it once a step, ``heun`` twice: its error falls with the square of the steps.
    """
    x, width = noise, 1 / steps
    for step in range(steps):
        here = torch.full((len(x),), step * width, dtype=torch.float32, device=x.device)
        slope = velocity(x, here)
        if method == "heun":
            slope = (slope + velocity(x + width * slope, here + width)) / 2
        x = x + width * slope
    return x
