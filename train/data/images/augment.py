"""Draws how training images are varied, as a pure function of the seed and the sample's position.

The position counts the samples of all epochs and ranks from 0. There is no random generator, so every sample is varied
in the same way in a resumed run and with another number of threads or ranks. If a frame comes twice in an epoch,
because its weight is above 1, it is varied differently each time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number
from vlapipe.train.data.ordering.permutation import hash_of

__all__ = ["Augmentation", "Draw"]

_RANGES = {
    "shift": (0.0, 0.5),
    "crop": (0.1, 1.0),
    "rotation_deg": (0.0, 45.0),
    "brightness": (0.0, 0.9),
    "contrast": (0.0, 0.9),
    "saturation": (0.0, 1.0),
}


class Draw(NamedTuple):
    """How one image is varied: one row of the result of ``Augmentation.of``, with the columns in this order.

    The box is the part of the image that is cut out. ``top`` and ``side`` are fractions of the image's height, ``left``
    and ``side`` of its width. Where the box lies outside the image, the image's edge is repeated. The box is turned by
    ``angle_rad`` about its own centre. The last three numbers are factors: 1 changes nothing.
    """

    top: float
    left: float
    side: float
    angle_rad: float
    brightness: float
    contrast: float
    saturation: float

    @property
    def changes_colour(self) -> bool:
        """Whether any of the three factors is not 1."""
        return (self.brightness, self.contrast, self.saturation) != (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training images are varied; a field at its neutral value (crop 1, the others 0) varies nothing.

    A crop enlarges what is seen in training by ``1 / crop``, and on the robot nothing is enlarged. A shift does not.

    Box and angle are drawn once for each camera of a sample. The colour is drawn once for all cameras of a sample.
    All rows of a window have the same draw, so that augmentation adds no motion or flicker to the window.
    """

    shift: float = 0.01  # largest move of the box to each side, as a fraction of the image's side
    crop: float = 1.0  # side of the box that is cut out and resized, as a fraction of the image's side
    rotation_deg: float = 0.0  # largest angle, to either side
    brightness: float = 0.2  # factors are drawn from 1 - x to 1 + x
    contrast: float = 0.2  # factor of the distance from middle gray
    saturation: float = 0.2

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            object.__setattr__(
                self, name, parse_number(f"Augmentation {name}", getattr(self, name), least=least, most=most)
            )

    @classmethod
    def from_table(cls, values: Mapping[str, Any], where: str) -> Augmentation:
        """Make an ``Augmentation`` from a configuration's table; missing fields keep their defaults.

        Raises:
            UsageError: a name is unknown, or a value is out of its range.
        """
        for name in values:
            if name not in _RANGES:
                raise UsageError(f"{where}: unknown option {name!r}", did_you_mean(name, _RANGES))
        return cls(**values)

    def of(self, positions: NDArray[np.int64], *, seed: int, camera: str = "") -> NDArray[np.float64]:
        """Draw for B samples: ``(B, 7)``, one ``Draw`` a row. A row does not depend on the other rows.

        Args:
            positions: (B,) position of each sample in the global sequence, counted over all epochs from 0.
            seed: the run's seed.
            camera: name of the camera; box and angle depend on it.
        """
        top, left, turn = (_uniform(f"geometry of {camera}", seed, positions, which) for which in range(3))
        factors = [_uniform("colour", seed, positions, which) for which in range(3)]
        strengths = (self.brightness, self.contrast, self.saturation)
        draws = np.empty((len(positions), len(Draw._fields)))
        for column, place in enumerate((top, left)):
            draws[:, column] = place * (1 - self.crop) + (2 * place - 1) * self.shift
        draws[:, 2] = self.crop
        draws[:, 3] = (2 * turn - 1) * math.radians(self.rotation_deg)
        for column, (factor, strength) in enumerate(zip(factors, strengths, strict=True), start=4):
            draws[:, column] = 1 + (2 * factor - 1) * strength
        return draws


def _uniform(what: str, seed: int, positions: NDArray[np.int64], which: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each position."""
    key = int.from_bytes(hashlib.blake2b(f"vlapipe augmentation {what}".encode(), digest_size=7).digest(), "big")
    bits = hash_of(key, seed, positions, which)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
