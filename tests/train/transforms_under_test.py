"""Transforms that tests name as ``transforms_under_test:name``."""

from __future__ import annotations

from typing import Any

import torch

Batch = dict[str, Any]


def without_second_camera(batch: Batch) -> Batch:
    """One camera less."""
    return {key: value for key, value in batch.items() if "View2" not in key}


def first_columns(batch: Batch) -> Batch:
    """A state of three columns."""
    return {**batch, "observation.state": batch["observation.state"][..., :3]}


def in_metres(batch: Batch) -> Batch:
    """Writes into the batch's own memory."""
    batch["observation.state"] /= 1000
    return batch


class Doubled:
    """Actions times two, and back."""

    def __call__(self, batch: Batch) -> Batch:
        """There."""
        return {**batch, "action": batch["action"] * 2}

    def undo(self, actions: torch.Tensor) -> torch.Tensor:
        """Back."""
        return actions / 2


doubled = Doubled()


def tripled(batch: Batch) -> Batch:
    """Actions times three, and no way back."""
    return {**batch, "action": batch["action"] * 3}


def with_goal(batch: Batch) -> Batch:
    """A further entry, and a sensor."""
    state = batch["observation.state"]
    power = {
        "observation.sensors.power": state.square().sum(2),
        "observation.sensors.power_is_pad": torch.isnan(state[..., 0]),
    }
    return {**batch, **power, "goal": state[:, -1]}


def fails(batch: Batch) -> Batch:
    """Asks for what is not there."""
    return {**batch, "x": batch["nothing"]}


def without_return(batch: Batch) -> None:
    """Forgets to return."""
