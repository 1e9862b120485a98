"""Makes batches from arguments, with the shapes that the loader gives, for tests without a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from vlapipe.train.data.batch_layout import Moments, SampleSpec


def make_spec(
    *,
    state: tuple[int, int] = (10, 4),
    sensors: dict[str, tuple[int, ...]] | None = None,
    images: dict[str, tuple[int, int, int, int]] | None = None,
    action: tuple[int, int] = (3, 2),
    constant_columns: int = 0,
) -> SampleSpec:
    """A spec with statistics; the last ``constant_columns`` of the actions are always 5."""
    sensors = {"force": (9,), "aline": (9, 70)} if sensors is None else sensors
    images = {"View1": (1, 3, 32, 48)} if images is None else images
    rng = np.random.default_rng(0)
    moments = {
        "observation.state": random_moments(rng, state[1]),
        "action": random_moments(rng, action[1]),
    }
    for name, shape in sensors.items():
        width = shape[1] if len(shape) > 1 and shape[1] <= 64 else 1
        moments[f"observation.sensors.{name}"] = random_moments(rng, width)
    if constant_columns:
        moments["action"].mean[-constant_columns:] = 5.0
        moments["action"].std[-constant_columns:] = 0.0
    return SampleSpec(state=state, sensors=sensors, images=images, action=action, moments=moments)


def random_moments(rng: np.random.Generator, width: int) -> Moments:
    """Means about 0 and deviations about 1."""
    return Moments(mean=rng.normal(0, 2, width).astype(np.float32), std=rng.uniform(0.5, 2, width).astype(np.float32))


def make_batch(spec: SampleSpec, batch_size: int = 4, *, seed: int = 0) -> dict[str, Any]:
    """Random observations and actions; the last action of the first sample is padded, and so is its oldest history."""
    generator = torch.Generator().manual_seed(seed)

    def normal(key: str, *shape: int) -> torch.Tensor:
        moments = spec.moments[key]
        noise = torch.randn(batch_size, *shape, generator=generator)
        return noise * torch.from_numpy(moments.std) + torch.from_numpy(moments.mean)

    entries = {"observation.state": spec.state, **{f"observation.sensors.{k}": v for k, v in spec.sensors.items()}}
    batch: dict[str, Any] = {key: normal(key, *shape) for key, shape in entries.items()}
    for camera, shape in spec.images.items():
        entries[f"observation.images.{camera}"] = shape
        size = (batch_size, *shape)
        batch[f"observation.images.{camera}"] = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    batch["action"] = normal("action", *spec.action)
    entries["action"] = spec.action
    for key, rows in entries.items():
        is_pad = torch.zeros(batch_size, rows[0], dtype=torch.bool)
        is_pad[0, -1 if key == "action" else 0] = rows[0] > 1
        batch[f"{key}_is_pad"] = is_pad
    batch["task"] = [("insert the needle into the red target", "grasp the blue cup")[i % 2] for i in range(batch_size)]
    numbers = torch.arange(batch_size)
    batch |= {"episode_index": numbers, "frame_index": 10 * numbers, "index": numbers}
    return batch


def losses_while_learning(policy: Any, batch: dict[str, Any], *, steps: int) -> list[float]:
    """Train on one batch. Every fifth step draws the same random numbers, so that their losses compare."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for step in range(steps):
        torch.manual_seed(step % 5)
        loss = policy.loss(batch).mean
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses
