"""Encodes a window of the state or a sensor: features of its newest row, and a few tokens for the rows before.

Shape letters: B batch, T rows of the window, W numbers a row, F features, N patches.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from vlapipe.train.policies.nn.positions import line_positions
from vlapipe.train.policies.nn.trunk import perceptron

__all__ = ["SeriesEncoder"]

MAX_PATCHES = 8  # maximum number of tokens for the past
MAX_ROW_WIDTH = 64  # a wider row is first projected to ROW_FEATURES
ROW_FEATURES = 32


class SeriesEncoder(nn.Module):
    """Features of the newest row, and up to 8 tokens for patches of consecutive rows.

    A narrow row is its own features. A wide one, such as a scan of a sensor, is first reduced by a perceptron.

    A patch contains differences from the newest row, because a change is small compared with a position and would be
    lost. Padded rows are zero, and an extra channel marks them.
    """

    position: Tensor

    def __init__(self, dim: int, shape: tuple[int, ...]) -> None:
        """Create the layers. ``shape`` is the entry's shape (T, ...); the dimensions after T are flattened to W."""
        super().__init__()
        num_rows, row_width = shape[0], math.prod(shape[1:])
        wide = row_width > MAX_ROW_WIDTH
        self.num_features = ROW_FEATURES if wide else row_width
        self.newest = perceptron(row_width, dim, ROW_FEATURES) if wide else None
        self.rows_a_patch = -(-num_rows // MAX_PATCHES)
        self.num_patches = -(-num_rows // self.rows_a_patch) if num_rows > 1 else 0
        if self.num_patches:
            self.reduce = nn.Linear(row_width, ROW_FEATURES) if wide else None
            self.patch = nn.Linear(self.rows_a_patch * (self.num_features + 1), dim)
            self.mix = nn.Sequential(nn.LayerNorm(dim), *perceptron(dim, dim, dim))
            self.register_buffer("position", line_positions(self.num_patches, dim), persistent=False)

    def forward(self, values: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns features ``(B, F)`` and tokens ``(B, N, dim)``; None in place of tokens if T is 1.

        ``values`` are normalized, ``(B, T, ...)``; ``is_pad`` is ``(B, T)`` bool. The newest row is the last one.
        """
        values = values.flatten(2) if values.dim() > 2 else values.unsqueeze(2)
        newest = values[:, -1]
        features = newest if self.newest is None else self.newest(newest)
        return features, self._past(values, is_pad) if self.num_patches else None

    def _past(self, values: Tensor, is_pad: Tensor) -> Tensor:
        rows = (values - values[:, -1:]).masked_fill(is_pad.unsqueeze(2), 0.0)
        if self.reduce is not None:
            rows = F.gelu(self.reduce(rows), approximate="tanh")
        rows = torch.cat([rows, is_pad.unsqueeze(2).to(rows.dtype)], dim=2)
        short = self.num_patches * self.rows_a_patch - rows.shape[1]
        rows = F.pad(rows, (0, 0, short, 0))  # pad in front, so that the oldest patch is the short one
        patches = self.patch(rows.reshape(len(rows), self.num_patches, -1))
        mixed: Tensor = patches + self.mix(patches) + self.position
        return mixed
