"""Computes the statistics that LeRobot's metadata holds, in LeRobot's own way: the same samples, bins and roundings.

Quantiles are those of a histogram of 5,000 bins. Images are sampled and made smaller first. Sums of pixels are taken
from counts of the 256 values, which is exact and fast. LeRobot up to 0.4.4 squares pixels as 8-bit numbers, which
overflow, so its standard deviations of images are wrong; here they are those of the pixels, as in later versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PixelCounts", "Stats", "aggregate", "sampled_rows", "stats_of_rows"]

Stats = dict[str, NDArray[Any]]  # min, max, mean, std, count and q01 to q99

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_BINS = 5000
_SMALL = 150  # images of _LARGE or more pixels a side are sampled at about this size
_LARGE = 300


def stats_of_rows(rows: NDArray[Any]) -> Stats:
    """Returns the statistics of numbers ``(N, ...)`` over the rows; of shape ``(1,)`` if a row is one number.

    Source of every formula: ``compute_episode_stats`` of LeRobot. Sums are in the dtype of ``rows``, as there.
    """
    flat = rows.reshape(-1, 1) if rows.ndim == 1 else rows.reshape(-1, rows.shape[-1])
    if len(flat) < 2:
        mean = np.mean(flat, axis=0)
        stats = {"min": flat.min(axis=0), "max": flat.max(axis=0), "mean": mean, "std": np.std(flat, axis=0)}
        quantiles = {name: mean.copy() for name in _QUANTILES}
    else:
        mean = np.mean(flat, axis=0)
        variance = np.mean(flat**2, axis=0) - mean**2
        least, most = flat.min(axis=0), flat.max(axis=0)
        stats = {"min": least, "max": most, "mean": mean, "std": np.sqrt(np.maximum(0, variance))}
        columns = [_histogram(flat[:, i], least[i], most[i]) for i in range(flat.shape[1])]
        quantiles = {name: _quantiles(columns, share, len(flat)) for name, share in _QUANTILES.items()}
    return {**stats, "count": np.array([len(rows)]), **quantiles}


class PixelCounts:
    """Counts the values of pixels of one camera in one episode, image by image."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._num_images = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Add an image ``(H, W, 3)``, made smaller by leaving pixels out if it is large."""
        height, width, _ = image.shape
        if max(height, width) >= _LARGE:
            step = int(width / _SMALL) if width > height else int(height / _SMALL)
            image = image[::step, ::step]
        for channel in range(3):
            self._counts[channel] += np.bincount(image[..., channel].reshape(-1), minlength=256)
        self._num_images += 1

    def stats(self) -> Stats:
        """Returns the statistics of each colour, ``(3, 1, 1)``, of values from 0 to 1."""
        values = np.arange(256, dtype=np.uint8)
        present = [values[counts > 0] for counts in self._counts]
        least = np.array([found[0] for found in present])
        most = np.array([found[-1] for found in present])
        num_pixels = self._counts.sum(axis=1)
        mean = (self._counts @ values.astype(np.int64)) / num_pixels
        squares = (self._counts @ values.astype(np.int64) ** 2) / num_pixels
        columns = [
            _histogram(values, low, high, counts) for low, high, counts in zip(least, most, self._counts, strict=True)
        ]
        stats: Stats = {"min": least, "max": most, "mean": mean, "std": np.sqrt(np.maximum(0, squares - mean**2))}
        quantiles = {name: _quantiles(columns, share, int(num_pixels[0])) for name, share in _QUANTILES.items()}
        return {**_scaled(stats), "count": np.array([self._num_images]), **_scaled(quantiles)}


def _scaled(stats: Stats) -> Stats:
    return {name: (value / 255.0).reshape(3, 1, 1) for name, value in stats.items()}


def sampled_rows(num_rows: int) -> list[int]:
    """Returns the rows whose images LeRobot takes into the statistics of an episode."""
    least = min(100, num_rows)
    count = max(least, min(int(num_rows**0.75), 10_000))
    rows: list[int] = np.round(np.linspace(0, num_rows - 1, count)).astype(int).tolist()
    return rows


def aggregate(one: dict[str, Stats] | None, other: dict[str, Stats]) -> dict[str, Stats]:
    """Returns the statistics of several episodes together. LeRobot adds one episode after the other, as this does."""
    if one is None:
        return other
    return {key: _aggregate([one[key], other[key]]) for key in other}


def _aggregate(parts: Sequence[Stats]) -> Stats:
    means = np.stack([part["mean"] for part in parts])
    variances = np.stack([part["std"] ** 2 for part in parts])
    counts = np.stack([part["count"] for part in parts])
    total = counts.sum(axis=0)
    weights = counts.reshape(-1, *[1] * (means.ndim - 1))
    mean = (means * weights).sum(axis=0) / total
    variance = ((variances + (means - mean) ** 2) * weights).sum(axis=0) / total
    merged: Stats = {
        "min": np.min(np.stack([part["min"] for part in parts]), axis=0),
        "max": np.max(np.stack([part["max"] for part in parts]), axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": total,
    }
    for name in _QUANTILES:
        merged[name] = (np.stack([part[name] for part in parts]) * weights).sum(axis=0) / total
    return merged


_Histogram = tuple[NDArray[np.float64], NDArray[Any]]  # counts and edges of the bins


def _histogram(values: NDArray[Any], least: Any, most: Any, counts: NDArray[np.int64] | None = None) -> _Histogram:
    edges = np.linspace(least - 1e-10, most + 1e-10, _BINS + 1)
    numbers = values.astype(np.uint8) if values.dtype == bool else values
    found, _ = np.histogram(numbers, bins=edges, weights=counts)
    return found.astype(np.float64), edges


def _quantiles(columns: Sequence[_Histogram], share: float, total: int) -> NDArray[Any]:
    return np.array([_quantile(counts, edges, share * total) for counts, edges in columns])


def _quantile(counts: NDArray[np.float64], edges: NDArray[Any], wanted: float) -> Any:
    """Returns the value below which ``wanted`` values lie, by a straight line within its bin."""
    below = np.cumsum(counts)
    i = int(np.searchsorted(below, wanted))
    if i == 0:
        return edges[0]
    if i >= len(below):
        return edges[-1]
    in_bin = below[i] - below[i - 1]
    if in_bin == 0:
        return edges[i]
    return edges[i] + (wanted - below[i - 1]) / in_bin * (edges[i + 1] - edges[i])
