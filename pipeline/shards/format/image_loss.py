"""How far images of 8 bits are from what they were before they were encoded."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["psnr_db", "squared_error"]


def squared_error(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Returns the mean squared error over all pixels and channels."""
    difference = before.astype(np.int16) - after
    return float(np.mean(np.square(difference, dtype=np.int32)))


def psnr_db(error: float) -> float:
    """Returns the peak signal-to-noise ratio of a mean squared error; 40 dB and more is hard to see."""
    return 10 * math.log10(255**2 / error) if error else math.inf
