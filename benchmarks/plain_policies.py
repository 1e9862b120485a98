"""The yardsticks of ``bench_policies.py``: a plain perceptron, and a small convolutional network.

    vlapipe train --data data --out run --policy plain_policies:Perceptron

Shape letters: B batch, H action horizon, A action size, K features.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor, nn

import vlapipe
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies.nn.normalize import Normalizer

Batch = dict[str, Any]
_ROWS, _TASK = 4093, 64  # of the table of instructions


class Perceptron(nn.Module):
    """Three hidden layers of 256: the newest state and a learned vector of the whole instruction in, the chunk out."""

    num_channels = 0  # of a camera

    def __init__(self, spec: SampleSpec, *, width: int = 256) -> None:
        super().__init__()
        self.H, self.A = spec.action
        self.state, self.action = Normalizer.of(spec, "observation.state"), Normalizer.of(spec, "action")
        self.task = nn.Embedding(_ROWS, _TASK)
        self.eyes = nn.ModuleDict({name: eye(self.num_channels) for name in spec.images if self.num_channels})
        sizes = [spec.state[1] + _TASK + 2 * self.num_channels * len(self.eyes), width, width, width]
        hidden = [layer for i in range(3) for layer in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, self.H * self.A))

    def loss(self, batch: Batch) -> vlapipe.LossOutput:
        """Return the absolute error of normalized actions."""
        error = self.predict(batch) - self.action(batch["action"])
        kept = ~batch["action_is_pad"].unsqueeze(2) & self.action.varies
        return vlapipe.LossOutput.masked(error.abs(), kept)

    @torch.no_grad()
    def act(self, observation: Batch) -> Tensor:
        """Return the chunk ``(B, H, A)``."""
        found: Tensor = self.action.invert(self.predict(observation))
        return found

    def predict(self, batch: Batch) -> Tensor:
        """Return normalized actions ``(B, H, A)``."""
        rows = torch.tensor([zlib.crc32(text.encode()) % _ROWS for text in batch["task"]])
        newest = self.state(batch["observation.state"])[:, -1]
        seen = torch.cat([newest, self.task(rows), *self.places(batch)], dim=1)
        out: Tensor = self.layers(seen).float().unflatten(1, (self.H, self.A))
        return out

    def places(self, batch: Batch) -> list[Tensor]:
        """Return the mean place of each channel, ``(B, 2 K)`` a camera."""
        found = []
        for key, eye in self.eyes.items():
            maps = eye(batch[f"observation.images.{key}"][:, -1].float() / 127.5 - 1).float()
            share = maps.flatten(2).softmax(dim=2).view_as(maps)
            y, x = (torch.linspace(-1, 1, size) for size in maps.shape[2:])
            found.append(torch.cat([(share.sum(2) * x).sum(2), (share.sum(3) * y).sum(2)], dim=1))
        return found


class SmallConvNet(Perceptron):
    """Three convolutions and a spatial softmax (Levine et al. 2016) a camera, before the same perceptron."""

    num_channels = 32


def eye(channels: int) -> nn.Sequential:
    """Return the convolutions of a camera."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )
