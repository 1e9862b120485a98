"""What lies on the table: three coloured pads, far enough apart, one of which the instruction names.

Millimetres in the arm's base frame: x forward, y to the left, z up; the table is the plane z = 0.
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
MIN_SEPARATION_MM = 40.0  # between centres: the pads never touch, and an aim 3 mm off is still plainly the named one
WORKSPACE_MM = ((120.0, 200.0), (-118.0, 12.0))  # where pads may stand: all of it well within the arm's reach


@dataclass(frozen=True, kw_only=True)
class Scene:
    """``colours[i]`` stands at ``centres_mm[i]`` (pads, 2); ``named`` is the index of the one to enter."""

    colours: tuple[str, ...]
    centres_mm: Floats
    named: int
    light: float  # gain of the room's light, about 1

    @property
    def instruction(self) -> str:
        """What the operator was told."""
        return f"insert the needle into the {self.colours[self.named]} target"

    @property
    def task(self) -> str:
        """The folder that the recording is filed under."""
        return f"insert_needle_{self.colours[self.named]}_target"

    def pad_at(self, points_mm: Floats) -> NDArray[np.int64]:
        """Index of the pad above or below each of ``(N, 2)`` points of the table, -1 beside them."""
        distance = np.linalg.norm(points_mm[:, None] - self.centres_mm, axis=2)
        nearest = distance.argmin(axis=1)
        return np.where(distance.min(axis=1) <= PAD_RADIUS_MM, nearest, -1)

    def height_at(self, points_mm: Floats) -> Floats:
        """Height of the surface at ``(N, 2)`` points: a pad's top, or the table."""
        return np.where(self.pad_at(points_mm) >= 0, PAD_HEIGHT_MM, 0.0)


def make_scene(seed: int, index: int) -> Scene:
    """The scene of one episode; four episodes in a row name each colour once."""
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
    """Draw all pads until they stand apart; about one draw in three does."""
    low, high = np.array(WORKSPACE_MM).T
    while True:
        centres = rng.uniform(low, high, (NUM_PADS, 2))
        apart = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(NUM_PADS, 1)]
        if (apart >= MIN_SEPARATION_MM).all():
            return centres
