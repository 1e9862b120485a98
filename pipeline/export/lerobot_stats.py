"""Computes the statistics that LeRobot's metadata holds, in LeRobot's own way: the same samples, bins and roundings.

Quantiles are those of a histogram of 5,000 bins. Images are sampled and made smaller first. Sums of pixels are taken
from counts of the 256 values, which is exact and fast. LeRobot up to 0.4.4 squares pixels as 8-bit numbers, which
overflow, so its standard deviations of images are wrong; here they are those of the pixels, as in later versions.
"""

from __future__ import annotations

import math
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
        columns = np.sort(flat.T, axis=1)
        edges = [_edges(low, high) for low, high in zip(least, most, strict=True)]
        quantiles = {
            name: np.array([_quantile(own, ends, share) for own, ends in zip(columns, edges, strict=True)])
            for name, share in _QUANTILES.items()
        }
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
        edges = [_edges(low, high) for low, high in zip(least, most, strict=True)]
        stats: Stats = {"min": least, "max": most, "mean": mean, "std": np.sqrt(np.maximum(0, squares - mean**2))}
        quantiles = {
            name: np.array([_quantile_of_counts(c, e, share) for c, e in zip(self._counts, edges, strict=True)])
            for name, share in _QUANTILES.items()
        }
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


def _edges(least: Any, most: Any) -> NDArray[Any]:
    """The edges of a histogram: bin i holds values from edge i to below edge i + 1, and the last one also its end."""
    return np.linspace(least - 1e-10, most + 1e-10, _BINS + 1)


def _quantile(values: NDArray[Any], edges: NDArray[Any], share: float) -> Any:
    """Returns a quantile by the histogram of sorted ``values``, of which only the one bin that matters is counted."""
    wanted = share * len(values)
    i = min(int(np.searchsorted(edges, values[math.ceil(wanted) - 1], side="right")) - 1, _BINS - 1)
    below = np.searchsorted(values, edges[i], side="left")
    until = np.searchsorted(values, edges[i + 1], side="right" if i == _BINS - 1 else "left")
    return _within_bin(edges, i, np.float64(below), np.float64(until), wanted)


def _quantile_of_counts(counts: NDArray[np.int64], edges: NDArray[Any], share: float) -> Any:
    """Returns a quantile of pixels; ``counts`` says how often each of the 256 values occurs."""
    wanted = share * int(counts.sum())
    until = np.cumsum(counts)
    value = int(np.searchsorted(until, wanted))  # a bin holds one value at most, since there are far more bins
    i = min(int(np.searchsorted(edges, value, side="right")) - 1, _BINS - 1)
    return _within_bin(edges, i, np.float64(until[value] - counts[value]), np.float64(until[value]), wanted)


def _within_bin(edges: NDArray[Any], i: int, below: np.float64, until: np.float64, wanted: float) -> Any:
    """The place in bin ``i`` of the ``wanted``-th value, by a straight line; the first bin counts as its first edge."""
    if i == 0:
        return edges[0]
    return edges[i] + (wanted - below) / (until - below) * (edges[i + 1] - edges[i])
