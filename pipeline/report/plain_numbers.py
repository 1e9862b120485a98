"""Makes numbers plain: as JSON has them, with as many digits as a reader can use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["significant", "thinned"]


def significant(value: Any, digits: int = 6) -> Any:
    """Returns the value with every float rounded to so many digits that count; NaN and infinity become ``None``."""
    if isinstance(value, dict):
        return {key: significant(one, digits) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [significant(one, digits) for one in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def thinned(x: NDArray[Any], y: NDArray[Any], most: int = 400) -> tuple[list[float | None], list[float | None]]:
    """Returns at most so many points of a curve; of each part the lowest and the highest, so that no spike is lost."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) > most:
        kept: list[int] = []
        for part in np.array_split(np.arange(len(x)), most // 2):
            values = np.where(np.isfinite(y[part]), y[part], np.nan)
            if np.isnan(values).all():
                kept.append(int(part[0]))
                continue
            kept += sorted({int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])})
        x, y = x[kept], y[kept]
    return significant(x.tolist(), 6), significant(y.tolist(), 5)
