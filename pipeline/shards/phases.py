"""The order of rows in which a chunk of every n-th row is one run: rows 0, n, 2n and so on, then 1, n+1, 2n+1.

An action chunk that looks ahead in steps of n rows would otherwise be as many places in memory as it has actions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTION_PHASES", "in_phases", "place_in_phases"]

ACTION_PHASES = "action/phases"  # action/value, each episode's rows in the order of ``in_phases``


def in_phases(num_rows: int, step: int) -> NDArray[np.int64]:
    """An episode's rows ``(num_rows,)`` in that order."""
    rows = np.arange(num_rows)
    return rows[np.argsort(rows % step, kind="stable")]


def place_in_phases(row: NDArray[np.int64], num_rows: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Where each row of an episode of ``num_rows`` lies in that order."""
    # Division by one number is quick, its remainder is not.
    turn, least = row // step, num_rows // step
    phase = row - turn * step
    # Each phase has that many rows at least, the first ones one more.
    place: NDArray[np.int64] = phase * least + np.minimum(phase, num_rows - least * step) + turn
    return place
