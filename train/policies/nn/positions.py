"""Fixed embeddings of places, the same for every dataset, so that they need neither training data nor a checkpoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["grid_positions", "line_positions"]


def line_positions(length: int, dim: int) -> Tensor:
    """``(length, dim)`` sines and cosines of the place (Vaswani et al. 2017); ``dim`` is even."""
    place = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(1e4) / dim))
    return torch.cat([torch.sin(place * rate), torch.cos(place * rate)], dim=1)


def grid_positions(height: int, width: int, dim: int) -> Tensor:
    """``(height * width, dim)``, row by row; half of the entries say the row, half the column; 4 divides ``dim``."""
    rows = line_positions(height, dim // 2)[:, None].expand(-1, width, -1)
    columns = line_positions(width, dim // 2)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(height * width, dim)
