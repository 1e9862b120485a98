"""How training images are varied: the numbers for each sample are a pure function of the seed and its position.

The position counts the samples of all epochs and ranks from 0. Nothing is drawn from a generator, so a resumed run,
another number of threads or of ranks varies every sample alike; and a frame that comes twice in an epoch, because it
has a weight above 1, is varied anew each time.
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
from vlapipe.train.data.permutation import hash_of

__all__ = ["Augmentation", "Draw"]

_RANGES = {
    "crop": (0.1, 1.0),
    "rotation_deg": (0.0, 45.0),
    "brightness": (0.0, 0.9),
    "contrast": (0.0, 0.9),
    "saturation": (0.0, 1.0),
}


class Draw(NamedTuple):
    """What happens to one image; a row of what ``Augmentation.of`` returns, in this order.

    The box lies ``top`` and ``left`` in the image and is ``side`` long, in parts of its height and width; it is turned
    by ``angle_rad`` about its own centre. The last three are factors: 1 changes nothing.
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
        """Whether any of its factors is not 1."""
        return (self.brightness, self.contrast, self.saturation) != (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far training images are varied; a field at its neutral value (crop 1, the others 0) varies nothing.

    Box and angle are one draw for each camera of a sample. The colour is one draw for the sample with all its cameras.
    Each is the same for all rows of a window, so that nothing moves or flickers that did not in the recording.
    """

    crop: float = 0.95  # side of the box that is cut out and brought back to size, in parts of the image's
    rotation_deg: float = 5.0  # at most, to either side
    brightness: float = 0.3  # factors are drawn from 1 - x to 1 + x
    contrast: float = 0.4  # about middle gray
    saturation: float = 0.5

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            object.__setattr__(self, name, _parse_number(f"Augmentation {name}", getattr(self, name), least, most))

    @classmethod
    def from_table(cls, values: Mapping[str, Any], where: str) -> Augmentation:
        """Of named fields, as a configuration holds them; the others keep their defaults.

        Raises:
            UsageError: a name is unknown, or a value out of its range.
        """
        for name in values:
            if name not in _RANGES:
                raise UsageError(f"{where}: unknown option {name!r}", did_you_mean(name, _RANGES))
        return cls(**values)

    def of(self, positions: NDArray[np.int64], *, seed: int, camera: str = "") -> NDArray[np.float64]:
        """The draws of samples, ``(B, 7)``: a ``Draw`` a row, each the same whatever stands beside it.

        Args:
            positions: (B,) of each sample in the global sequence, counted over all epochs from 0.
            seed: of the run.
            camera: whose images they are for.
        """
        top, left, turn = (_uniform(f"geometry of {camera}", seed, positions, which) for which in range(3))
        factors = [_uniform("colour", seed, positions, which) for which in range(3)]
        strengths = (self.brightness, self.contrast, self.saturation)
        draws = np.empty((len(positions), len(Draw._fields)))
        draws[:, 0] = top * (1 - self.crop)
        draws[:, 1] = left * (1 - self.crop)
        draws[:, 2] = self.crop
        draws[:, 3] = (2 * turn - 1) * math.radians(self.rotation_deg)
        for column, (factor, strength) in enumerate(zip(factors, strengths, strict=True), start=4):
            draws[:, column] = 1 + (2 * factor - 1) * strength
        return draws


def _uniform(what: str, seed: int, positions: NDArray[np.int64], which: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each position."""
    key = int.from_bytes(hashlib.blake2b(f"vlapipe augmentation {what}".encode(), digest_size=7).digest(), "big")
    bits = hash_of(key, seed, positions, which)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _parse_number(what: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise UsageError(f"{what}: expected a number from {least:g} to {most:g}, found {value!r}")
    return float(value)
