"""Encodes a window of the state or a sensor into a few tokens. One token is for the newest row alone.

Shape letters: B batch, T rows of the window, W numbers a row, N patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.train.policies.nn.positions import line_positions

__all__ = ["SeriesEncoder"]

MAX_PATCHES = 8  # maximum number of tokens for the past
MAX_ROW_WIDTH = 64  # a wider row is first projected to ROW_FEATURES
ROW_FEATURES = 32


class SeriesEncoder(nn.Module):
    """One token for the newest row, and up to 8 tokens for patches of consecutive rows.

    A patch contains differences from the newest row, because a change is small compared with a position and would be
    lost. Padded rows are zero, and an extra channel marks them.
    """

    position: Tensor

    def __init__(self, dim: int, shape: tuple[int, ...]) -> None:
        """Create the layers. ``shape`` is the entry's shape (T, ...); the dimensions after T are flattened to W."""
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
        """Returns tokens ``(B, 1 + N, dim)`` from normalized ``values`` ``(B, T, ...)`` and ``is_pad`` ``(B, T)`` bool.

        The newest row is the last row of the window.
        """
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
        rows = F.pad(rows, (0, 0, short, 0))  # pad in front, so that the oldest patch is the short one
        patches = self.patch(rows.reshape(len(rows), self.num_patches, -1))
        mixed: Tensor = patches + self.mix(patches)
        return mixed
