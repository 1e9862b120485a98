"""ACT (Zhao et al. 2023, arXiv 2304.13705) as a policy of vlapipe: chunks of actions from a conditional autoencoder.

In training, a small transformer reads the demonstrated actions and squeezes what the observation does not tell (fast or
slow, left or right) into a variable z. The policy proper predicts the chunk from images, state and z. To act, z is 0.

    vlapipe train --data data --out run --policy act:ACTPolicy --learning-rate 1e-4

Shape letters: B batch, H action horizon, A action size, N tokens.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import vlapipe
from vlapipe.train.data.batch_layout import SampleSpec
from vlapipe.train.policies.nn.normalize import Normalizer

Batch = dict[str, Any]


class ACTPolicy(nn.Module):
    """An encoder of z that only training uses; an encoder of the observation; a decoder with a query an action."""

    def __init__(
        self,
        spec: SampleSpec,
        *,
        dim: int = 256,
        depth: int = 4,
        num_heads: int = 8,
        latent: int = 32,
        kl_weight: float = 10.0,
    ) -> None:
        super().__init__()
        self.H, self.A = spec.action
        self.latent, self.kl_weight = latent, kl_weight
        self.cameras = [f"observation.images.{name}" for name, shape in spec.images.items() if shape[1] == 3]
        self.newest = spec.newest
        self.state = Normalizer.of(spec, "observation.state", limit=10.0)
        self.action = Normalizer.of(spec, "action")

        self.state_token = nn.Linear(spec.state[1], dim)
        self.images = nn.ModuleList(convolutions(dim) for _ in self.cameras)
        self.encoder = encoder(dim, num_heads, depth)
        self.decoder = nn.TransformerDecoder(layer(nn.TransformerDecoderLayer, dim, num_heads), depth)
        self.query = nn.Parameter(torch.randn(self.H, dim) * 0.02)
        self.head = nn.Linear(dim, self.A)

        self.z_encoder = encoder(dim, num_heads, 2)
        self.z_start = nn.Parameter(torch.randn(dim) * 0.02)
        self.z_action = nn.Linear(self.A, dim)
        self.z_state = nn.Linear(spec.state[1], dim)
        self.z_out = nn.Linear(dim, 2 * latent)
        self.z_token = nn.Linear(latent, dim)
        self.register_buffer("places", waves(2 + self.H, dim), persistent=False)

    def loss(self, batch: Batch) -> vlapipe.LossOutput:
        """The absolute error of the actions, and how far z is from a normal distribution."""
        actions, is_pad = self.action(batch["action"]), batch["action_is_pad"]
        mean, log_variance = self.z_of(self.newest_state(batch), actions, is_pad)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        kept = ~is_pad.unsqueeze(2) & self.action.varies & batch["action"].isfinite()
        errors = vlapipe.LossOutput.masked((self.predict(batch, z) - actions).abs(), kept)
        # A sum over the samples, in the measure of the errors: each sample counts as all of its actions do.
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(dim=1)
        share = kept.expand_as(actions).sum(dim=(1, 2))
        total = errors.total + self.kl_weight * (divergence * share).sum()
        return vlapipe.LossOutput(total, errors.weight, {"l1": errors.mean, "kl": divergence.mean()})

    @torch.no_grad()
    def act(self, observation: Batch) -> Tensor:
        """The chunk of actions ``(B, H, A)`` in the dataset's units."""
        z = self.places.new_zeros(len(observation["observation.state"]), self.latent)
        actions: Tensor = self.action.invert(self.predict(observation, z))
        return actions

    def blocks(self) -> list[nn.Module]:
        """For --parallel fsdp and --gradient-checkpointing."""
        return [*self.images, *self.encoder.layers, *self.decoder.layers]

    def newest_state(self, batch: Batch) -> Tensor:
        state: Tensor = self.state(batch["observation.state"])[:, self.newest]
        return state

    def z_of(self, state: Tensor, actions: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of z, ``(B, latent)`` each."""
        start = self.z_start.expand(len(state), 1, -1)
        tokens = torch.cat([start, self.z_state(state).unsqueeze(1), self.z_action(actions)], dim=1) + self.places
        mask = torch.cat([is_pad.new_zeros(len(state), 2), is_pad], dim=1)
        mean, log_variance = self.z_out(self.z_encoder(tokens, src_key_padding_mask=mask)[:, 0]).float().chunk(2, dim=1)
        return mean, log_variance

    def predict(self, batch: Batch, z: Tensor) -> Tensor:
        """Normalized actions ``(B, H, A)``."""
        tokens = [self.z_token(z).unsqueeze(1), self.state_token(self.newest_state(batch)).unsqueeze(1)]
        for key, convolve in zip(self.cameras, self.images, strict=True):
            image = batch[key][:, -1].float() / 127.5 - 1
            image = image.masked_fill(batch[f"{key}_is_pad"][:, -1, None, None, None], 0)
            features = convolve(image)
            _, dim, height, width = features.shape
            rows, columns = waves(height, dim // 2)[:, None], waves(width, dim // 2)[None]
            grid = torch.cat([rows.expand(-1, width, -1), columns.expand(height, -1, -1)], dim=2)
            tokens.append(features.flatten(2).transpose(1, 2) + grid.flatten(0, 1).to(features))
        memory = self.encoder(torch.cat(tokens, dim=1))
        predicted: Tensor = self.head(self.decoder(self.query.expand(len(z), -1, -1), memory)).float()
        return predicted


def convolutions(dim: int) -> nn.Sequential:
    """A sixteenth of the image's height and width, ``dim`` channels; no batch statistics, which ranks do not share."""
    sizes = [3, dim // 8, dim // 4, dim // 2, dim]
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(1, after), nn.SiLU()]
    return nn.Sequential(*parts)


def encoder(dim: int, num_heads: int, depth: int) -> nn.TransformerEncoder:
    one = layer(nn.TransformerEncoderLayer, dim, num_heads)
    return nn.TransformerEncoder(one, depth, enable_nested_tensor=False)


def layer(kind: Any, dim: int, num_heads: int) -> Any:
    return kind(dim, num_heads, 4 * dim, dropout=0.1, batch_first=True, norm_first=True)


def waves(length: int, dim: int) -> Tensor:
    """Sines and cosines of places, ``(length, dim)``."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(1e4) / dim))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
