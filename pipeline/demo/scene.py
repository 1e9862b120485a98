"""The scene on the table: three coloured pads, far enough apart. The instruction names one of them.

Positions are in mm in the arm's base frame: x forward, y to the left, z up. The table is the plane z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "PAD_HEIGHT_MM", "PAD_RADIUS_MM", "Scene", "make_scene"]

Floats = NDArray[np.float64]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 44),
    "green": (44, 168, 78),
    "blue": (48, 98, 222),
    "yellow": (236, 200, 44),
}
PAD_RADIUS_MM = 15.0
PAD_HEIGHT_MM = 12.0
NUM_PADS = 3
MIN_SEPARATION_MM = 40.0  # between centres: pads never touch, and an aim 3 mm off still clearly hits the named pad
WORKSPACE_MM = ((120.0, 200.0), (-118.0, 12.0))  # where pads may lie, well within the arm's reach


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The pad of colour ``colours[i]`` lies at ``centres_mm[i]`` (pads, 2). ``named`` is the index of the named pad."""

    colours: tuple[str, ...]
    centres_mm: Floats
    named: int
    light: float  # gain of the room's light, about 1

    @property
    def instruction(self) -> str:
        """The instruction that the operator was given."""
        return f"insert the needle into the {self.colours[self.named]} target"

    @property
    def task(self) -> str:
        """The task's folder that holds the recording."""
        return f"insert_needle_{self.colours[self.named]}_target"

    def pad_at(self, points_mm: Floats) -> NDArray[np.int64]:
        """Return the index of the pad at each of ``(N, 2)`` points of the table, -1 where there is no pad."""
        distance = np.linalg.norm(points_mm[:, None] - self.centres_mm, axis=2)
        nearest = distance.argmin(axis=1)
        return np.where(distance.min(axis=1) <= PAD_RADIUS_MM, nearest, -1)

    def height_at(self, points_mm: Floats) -> Floats:
        """Return the height of the surface at ``(N, 2)`` points: a pad's top, or the table."""
        return np.where(self.pad_at(points_mm) >= 0, PAD_HEIGHT_MM, 0.0)


def make_scene(seed: int, index: int) -> Scene:
    """Draw the scene of one episode. Each block of four episodes names every colour once."""
    colours = list(COLOURS)
    block, place = divmod(index, len(colours))
    wanted = colours[int(np.random.default_rng([seed, block, 0]).permutation(len(colours))[place])]
    rng = np.random.default_rng([seed, index, 1])
    others = [colour for colour in colours if colour != wanted]
    shown = np.array([wanted, *rng.choice(others, NUM_PADS - 1, replace=False)])
    rng.shuffle(shown)
    names = tuple(str(name) for name in shown)
    return Scene(
        colours=names,
        centres_mm=_place_pads(rng),
        named=names.index(wanted),
        light=float(rng.uniform(0.88, 1.06)),
    )


def _place_pads(rng: np.random.Generator) -> Floats:
    """Draw the positions of all pads until they are far enough apart, which about one draw in three is."""
    low, high = np.array(WORKSPACE_MM).T
    while True:
        centres = rng.uniform(low, high, (NUM_PADS, 2))
        apart = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(NUM_PADS, 1)]
        if (apart >= MIN_SEPARATION_MM).all():
            return centres
