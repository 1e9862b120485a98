"""Random numbers depend on the place in the run alone: seed, use, step, rank and pass."""

from __future__ import annotations

import random

import numpy as np
import torch

from vlapipe.train.parallel.rng import seed_generators

HERE = {"use": "train", "step": 3, "rank": 1, "part": 0}


def drawn(seed: int = 0, **place: object) -> tuple[float, float, float]:
    seed_generators(seed, **(HERE | place))  # type: ignore[arg-type]
    return float(torch.rand(())), np.random.rand(), random.random()  # noqa: NPY002, S311


def test_each_place_draws_its_own_numbers_whatever_was_drawn_before() -> None:
    places = [
        drawn(),
        drawn(seed=1),
        *(drawn(**{name: value}) for name, value in (("use", "validation"), ("step", 4), ("rank", 0), ("part", 1))),
    ]
    assert len({number for place in places for number in place}) == 3 * len(places)
    torch.rand(7)
    assert drawn() == places[0]
