"""Fixed position embeddings. They are the same for every dataset, so a checkpoint does not need to save them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["grid_positions", "line_positions", "waves"]


def line_positions(length: int, dim: int) -> Tensor:
    """Returns sines and cosines of each position, ``(length, dim)`` (Vaswani et al. 2017). ``dim`` must be even."""
    return waves(torch.arange(length, dtype=torch.float32), dim)


def waves(places: Tensor, dim: int) -> Tensor:
    """Returns sines and cosines of places ``(N,)`` float32 on a line, ``(N, dim)``, at ``dim / 2`` rates."""
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32, device=places.device) * (-math.log(1e4) / dim))
    angle = places[:, None] * rate
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


def grid_positions(height: int, width: int, dim: int) -> Tensor:
    """Returns embeddings of a grid, ``(height * width, dim)``, row by row. ``dim`` must be a multiple of 4.

    The first half of an embedding encodes the row, the second half the column.
    """
    rows = line_positions(height, dim // 2)[:, None].expand(-1, width, -1)
    columns = line_positions(width, dim // 2)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(height * width, dim)
