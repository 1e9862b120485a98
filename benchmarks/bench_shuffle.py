"""Measures how well block shuffling mixes shards, against a full shuffle; one JSON line a block size, and a picture.

Frames of a shard are alike (a day's light, a task's poses). Take a value that is constant in a shard: in a full
shuffle, the means of batches spread by ``1 / sqrt(batch)`` of the value's spread. ``noise`` is the measured spread over
this one. ``episodes`` is the number of different episodes in a batch. ``held`` is the fraction of the data that a
reader has at hand at a time.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlapipe.train.data.ordering.order import Blocked, Order, Shuffled

NUM_SHARDS, EPISODES, FRAMES = 64, 25, 400  # EPISODES of each shard, FRAMES of each episode
BATCH = 64
MIXED = (1, 2, 4, 8, 16, 32, 64)


def quality(order: Order) -> dict[str, float]:
    """Measure the mixing over one epoch."""
    frames = order.frames(np.arange(order.num_positions))
    batches = frames[: len(frames) // BATCH * BATCH].reshape(-1, BATCH)
    of_shard = np.random.default_rng(0).normal(size=NUM_SHARDS)
    means = of_shard[batches // (EPISODES * FRAMES)].mean(1)
    episodes = np.sort(batches // FRAMES, axis=1)
    return {
        "noise": float(means.std() / (of_shard.std() / np.sqrt(BATCH))),
        "episodes": float((np.diff(episodes, axis=1) > 0).sum(1).mean() + 1),
    }


def order_of(mixed: int) -> Order:
    lengths = np.full(NUM_SHARDS, EPISODES * FRAMES)
    return Shuffled(int(lengths.sum()), 0) if mixed == NUM_SHARDS else Blocked(lengths, mixed, 0)


def picture(path: Path, size: int = 240, points: int = 20_000) -> None:
    """Draw one panel for every second block size: when each frame comes (right) by its recorded position (down)."""
    panels = []
    for mixed in MIXED[::2]:
        order = order_of(mixed)
        positions = np.linspace(0, order.num_positions - 1, points).astype(np.int64)
        panel: NDArray[np.uint8] = np.full((size, size), 255, dtype=np.uint8)
        row, column = (values * size // order.num_positions for values in (order.frames(positions), positions))
        panel[row, column] = 40
        panels.append(np.pad(panel, 4, constant_values=160))
    Image.fromarray(np.concatenate(panels, axis=1)).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--picture", type=Path, help="write the picture to this PNG")
    options = parser.parse_args()
    for mixed in MIXED:
        line = {"bench": "shuffle", "mixed": mixed, "of": NUM_SHARDS, "held": mixed / NUM_SHARDS}
        measured = {key: round(value, 2) for key, value in quality(order_of(mixed)).items()}
        print(json.dumps(line | measured))
    if options.picture:
        picture(options.picture)


if __name__ == "__main__":
    main()
