"""Random numbers without a generator: a hash of the numbers that say what they are for, for whole arrays at once."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

__all__ = ["hash_of"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the finalizer of splitmix64 (Steele, Lea and Flood 2014)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def hash_of(*numbers: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random-looking bits for each tuple of numbers; arrays broadcast, and the order of the numbers counts."""
    arrays = [np.atleast_1d(np.asarray(number)).astype(np.int64).view(np.uint64) for number in numbers]
    return reduce(lambda state, values: _finalize(state + values), arrays, np.zeros(1, dtype=np.uint64))


def _finalize(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))
