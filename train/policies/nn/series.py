"""Turns a window of a state or a sensor into a few tokens, the newest row exactly in one of them.

Shape letters: B batch, T rows of the window, W numbers a row, N patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.train.policies.nn.positions import line_positions

__all__ = ["SeriesEncoder"]

MAX_PATCHES = 8  # of the history
MAX_ROW_WIDTH = 64  # a wider row is first reduced to ROW_FEATURES
ROW_FEATURES = 32


class SeriesEncoder(nn.Module):
    """One token for the newest row and up to 8 for patches of consecutive rows of the past.

    The past enters as its difference from the newest row: a velocity is small beside a position, and would drown.
    Rows that the episode does not have are zero, and an extra channel marks them.
    """

    position: Tensor

    def __init__(self, dim: int, shape: tuple[int, ...]) -> None:
        """Args: ``shape`` is (T, ...) of the entry; what follows T is flattened to W."""
        super().__init__()
        num_rows, row_width = shape[0], math.prod(shape[1:])
        self.newest = nn.Linear(row_width, dim)
        self.rows_a_patch = -(-num_rows // MAX_PATCHES)
        self.num_patches = -(-num_rows // self.rows_a_patch) if num_rows > 1 else 0
        if self.num_patches:
            wide = row_width > MAX_ROW_WIDTH
            self.reduce = nn.Linear(row_width, ROW_FEATURES) if wide else None
            features = (ROW_FEATURES if wide else row_width) + 1
            self.patch = nn.Linear(self.rows_a_patch * features, dim)
            self.mix = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
            )
        self.register_buffer("position", line_positions(1 + self.num_patches, dim), persistent=False)

    def forward(self, values: Tensor, is_pad: Tensor) -> Tensor:
        """``(B, T, ...)`` normalized and ``(B, T)`` bool, the newest row last, to ``(B, 1 + N, dim)``."""
        values = values.flatten(2) if values.dim() > 2 else values.unsqueeze(2)
        tokens = self.newest(values[:, -1]).unsqueeze(1)
        if self.num_patches:
            tokens = torch.cat([tokens, self._past(values, is_pad)], dim=1)
        placed: Tensor = tokens + self.position
        return placed

    def _past(self, values: Tensor, is_pad: Tensor) -> Tensor:
        rows = (values - values[:, -1:]).masked_fill(is_pad.unsqueeze(2), 0.0)
        if self.reduce is not None:
            rows = F.gelu(self.reduce(rows), approximate="tanh")
        rows = torch.cat([rows, is_pad.unsqueeze(2).to(rows.dtype)], dim=2)
        short = self.num_patches * self.rows_a_patch - rows.shape[1]
        rows = F.pad(rows, (0, 0, short, 0))  # in front: the oldest patch is the short one
        patches = self.patch(rows.reshape(len(rows), self.num_patches, -1))
        mixed: Tensor = patches + self.mix(patches)
        return mixed
