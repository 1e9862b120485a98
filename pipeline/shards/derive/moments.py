"""Merges counts, means and squared differences of parts into those of all values together, without the values.

Ingest merges the moments of shards, and training those of several datasets, by this one function.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["merge_moments"]

Part = tuple[Any, NDArray[np.float64], NDArray[np.float64]]


def merge_moments(parts: Iterable[Part]) -> Part:
    """Merge one part or more, each ``(count, mean, m2)``, where ``m2`` is the sum of squared differences from the mean.

    Arrays broadcast: one number for each column, or one number for all. A part without values (count 0) adds nothing.
    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    (count, mean, m2), *others = parts
    for other_count, other_mean, other_m2 in others:
        total = count + other_count
        least = np.maximum(total, 1)
        apart = other_mean - mean
        m2 = m2 + other_m2 + apart**2 * (count * other_count / least)
        mean = mean + apart * (other_count / least)
        count = total
    return count, mean, m2
