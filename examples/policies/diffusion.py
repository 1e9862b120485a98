"""Diffusion Policy (Chi et al. 2023, arXiv 2303.04137) as a policy of vlapipe: a U-Net in time removes noise.

Noise is added to the demonstrated chunk in up to 100 steps, and the U-Net learns to name it, given the observation. To
act, it begins with noise alone and takes ten longer steps back (DDIM, Song et al. 2021).

    vlapipe train --data data --out run --policy diffusion:DiffusionPolicy --learning-rate 1e-4

Shape letters: B batch, H action horizon, A action size, C channels.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

import vlapipe
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies.nn.normalize import Normalizer

Batch = dict[str, Any]


class DiffusionPolicy(nn.Module):
    """An encoder of the observation, and a U-Net that it steers (FiLM)."""

    def __init__(
        self, spec: SampleSpec, *, width: int = 128, num_keypoints: int = 32, num_steps: int = 100, act_steps: int = 10
    ) -> None:
        super().__init__()
        self.H, self.A = spec.action
        self.num_steps, self.act_steps, self.newest = num_steps, act_steps, spec.newest
        self.cameras = [f"observation.images.{name}" for name, shape in spec.images.items() if shape[1] == 3]
        self.state = Normalizer.of(spec, "observation.state", limit=10.0)
        self.action = Normalizer.of(spec, "action")
        self.images = nn.ModuleList(Keypoints(num_keypoints) for _ in self.cameras)
        told = spec.state[1] + 2 * num_keypoints * len(self.cameras) + width
        self.net = UNet(self.A, width, told)
        self.time_width = width
        # The squared cosine of Nichol and Dhariwal (2021): the share of the signal that is left after each step.
        t = torch.linspace(0, 1, num_steps + 1)
        kept = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        self.register_buffer("signal", (kept / kept[0])[1:].clamp_min(1e-4), persistent=False)

    def loss(self, batch: Batch) -> vlapipe.LossOutput:
        """The squared error of the noise."""
        actions = self.action(batch["action"])
        step = torch.randint(self.num_steps, (len(actions),), device=actions.device)
        noise, signal = torch.randn_like(actions), self.signal[step, None, None]
        named = self.noise_in(signal.sqrt() * actions + (1 - signal).sqrt() * noise, step, self.observed(batch))
        kept = ~batch["action_is_pad"].unsqueeze(2) & self.action.varies & batch["action"].isfinite()
        return vlapipe.LossOutput.masked((named - noise).square(), kept)

    @torch.no_grad()
    def act(self, observation: Batch) -> Tensor:
        """The chunk of actions ``(B, H, A)`` in the dataset's units."""
        seen = self.observed(observation)
        x = torch.randn(len(seen), self.H, self.A, device=seen.device)
        steps = torch.linspace(self.num_steps - 1, 0, self.act_steps, device=seen.device).round().long()
        for i, step in enumerate(steps):
            signal = self.signal[step]
            noise = self.noise_in(x, step.expand(len(x)), seen)
            clean = ((x - (1 - signal).sqrt() * noise) / signal.sqrt()).clamp(-5, 5)
            left = self.signal[steps[i + 1]] if i + 1 < len(steps) else torch.ones_like(signal)
            noise = (x - signal.sqrt() * clean) / (1 - signal).sqrt()
            x = left.sqrt() * clean + (1 - left).sqrt() * noise
        actions: Tensor = self.action.invert(x)
        return actions

    def blocks(self) -> list[nn.Module]:
        """For --parallel fsdp and --gradient-checkpointing."""
        return [*self.images, *self.net.blocks()]

    def observed(self, batch: Batch) -> Tensor:
        """The newest state, and where each camera's features are strongest."""
        parts = [self.state(batch["observation.state"])[:, self.newest]]
        for key, encoder in zip(self.cameras, self.images, strict=True):
            image = batch[key][:, -1].float() / 127.5 - 1
            parts.append(encoder(image.masked_fill(batch[f"{key}_is_pad"][:, -1, None, None, None], 0)))
        return torch.cat(parts, dim=1)

    def noise_in(self, x: Tensor, step: Tensor, seen: Tensor) -> Tensor:
        rates = torch.exp(torch.linspace(0, -math.log(1e4), self.time_width // 2, device=x.device))
        told = torch.cat([seen, (step[:, None] * rates).sin(), (step[:, None] * rates).cos()], dim=1)
        named: Tensor = self.net(x.transpose(1, 2), told).transpose(1, 2).float()
        return named


class Keypoints(nn.Module):
    """Convolutions, then the mean place of each channel (spatial softmax): ``(B, 2 C)``."""

    def __init__(self, num: int) -> None:
        super().__init__()
        sizes, parts = [3, 32, 64, num], list[nn.Module]()
        for before, after in pairwise(sizes):
            parts += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(1, after), nn.SiLU()]
        self.layers = nn.Sequential(*parts[:-1])

    def forward(self, image: Tensor) -> Tensor:
        features = self.layers(image).float()
        weights = features.flatten(2).softmax(dim=2).unflatten(2, features.shape[2:])  # type: ignore[no-untyped-call]
        rows, columns = (torch.linspace(-1, 1, size, device=image.device) for size in features.shape[2:])
        return torch.cat([weights.sum(dim=3) @ rows, weights.sum(dim=2) @ columns], dim=1)


class Residual(nn.Module):
    """Two convolutions in time; what is told scales and shifts the features between them."""

    def __init__(self, before: int, after: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(before, after, 5, padding=2), nn.GroupNorm(8, after), nn.Mish())
        self.film = nn.Linear(told, 2 * after)
        self.second = nn.Sequential(nn.Conv1d(after, after, 5, padding=2), nn.GroupNorm(8, after), nn.Mish())
        self.skip = nn.Conv1d(before, after, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.film(told).unsqueeze(2).chunk(2, dim=1)
        out: Tensor = self.second((1 + scale) * self.first(x) + shift) + self.skip(x)
        return out


class UNet(nn.Module):
    """Two levels down in time and up again, for a chunk of any length."""

    def __init__(self, size: int, width: int, told: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([Residual(size, width, told), Residual(width, 2 * width, told)])
        self.middle = Residual(2 * width, 2 * width, told)
        self.up = nn.ModuleList([Residual(4 * width, width, told), Residual(2 * width, width, told)])
        self.out = nn.Conv1d(width, size, 1)

    def blocks(self) -> list[nn.Module]:
        return [*self.down, self.middle, *self.up]

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            x = block(x, told)
            kept.append(x)
            x = F.avg_pool1d(x, 2, ceil_mode=True)
        x = self.middle(x, told)
        for block in self.up:
            skip = kept.pop()
            x = block(torch.cat([F.interpolate(x, size=skip.shape[2]), skip], dim=1), told)
        return self.out(x)  # type: ignore[no-any-return]
