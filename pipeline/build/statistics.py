"""Counts, moments and quantiles of fields, which can be merged without reading the rows again.

Moments are computed for each episode and merged pairwise (Chan, Golub, LeVeque 1979). Ingest merges in the plan's
order, so the result does not depend on which worker finishes first, to the last bit. Quantiles come from a histogram
whose bucket keys are the leading bits of the float32 value, so histograms merge by adding counts. With 11 bits of
mantissa a quantile is within 0.025 % of the right value, with 7 bits (wide fields) within 0.4 %.

A schema may allow values that are not finite in float32 (NaN, infinity, 1e200). All statistics leave these values out,
and the counts give the number of the other values. All statistics of a column without a finite value are 0.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.moments import merge_moments

__all__ = ["QUANTILES", "WIDE", "FieldStatistics", "Histograms", "Moments"]

WIDE = 64  # a row with more numbers than this has one summary for the whole row, not one for each column
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_NARROW_BITS, _WIDE_BITS = 11, 7
_BLOCK = 1 << 20  # number of wide values that are summed at once, so that their float64 copies stay small
_ARRAYS = ("mean", "m2", "min", "max")
_MOST = float(np.finfo(np.float32).max)

Count = int | NDArray[np.int64]  # one number, or one number a column if the columns differ


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean, spread and limits of one field. Arrays are float64, one entry a column (one entry in all if wide).

    A column without a finite value has the limits inf and -inf.
    """

    count: Count
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]  # sum of squared differences from the mean
    min: NDArray[np.float64]
    max: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[Any]) -> Moments:
        """Compute the moments of the finite values in ``(rows, ...)`` values, which may have no row."""
        if not len(values):
            none = np.zeros(len(_columns(values)))
            return cls(count=0, mean=none, m2=none, min=none + np.inf, max=none - np.inf)
        rows = max(1, _BLOCK // math.prod(values.shape[1:]))
        if _is_wide(values) and len(values) > rows:
            return cls.merged([cls.of(values[start : start + rows]) for start in range(0, len(values), rows)])
        columns = _columns(values)
        low, high = columns.min(axis=1).astype(np.float64), columns.max(axis=1).astype(np.float64)
        if not (_is_finite(low) & _is_finite(high)).all():
            return cls._of_the_finite(columns)
        apart = columns.astype(np.float64, order="C")
        mean = apart.mean(axis=1)
        apart -= mean[:, None]
        # Not a dot product: BLAS splits it by its number of threads, and workers would then differ in the last bit.
        m2 = np.square(apart, out=apart).sum(axis=1)
        return cls(count=columns.shape[1], mean=mean, m2=m2, min=low, max=high)

    @classmethod
    def _of_the_finite(cls, columns: NDArray[Any]) -> Moments:
        """Compute the moments of ``(columns, rows)`` values of which some are not finite."""
        finite = _is_finite(columns)
        counts = finite.sum(axis=1)
        values = np.where(finite, columns, 0).astype(np.float64, order="C")
        mean = values.sum(axis=1) / np.maximum(counts, 1)
        m2 = np.square(np.where(finite, values - mean[:, None], 0)).sum(axis=1)
        low, high = (np.where(finite, values, limit) for limit in (np.inf, -np.inf))
        return cls(count=_one_if_equal(counts), mean=mean, m2=m2, min=low.min(axis=1), max=high.max(axis=1))

    @classmethod
    def merged(cls, parts: Sequence[Moments]) -> Moments:
        """Merge moments into those of all parts' rows together. There must be at least one part."""
        count, mean, m2 = merge_moments((part.count, part.mean, part.m2) for part in parts)
        low, high = np.minimum.reduce([part.min for part in parts]), np.maximum.reduce([part.max for part in parts])
        return cls(count=_one_if_equal(count), mean=mean, m2=m2, min=low, max=high)

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation."""
        deviation: NDArray[np.float64] = np.sqrt(self.m2 / np.maximum(self.count, 1))
        return deviation

    def to_dict(self) -> dict[str, list[float]]:
        """Return mean, std, min and max as plain lists, with 0 for a column without a finite value."""
        lists = {name: getattr(self, name) for name in ("mean", "std", "min", "max")}
        return {name: np.where(np.equal(self.count, 0), 0.0, values).tolist() for name, values in lists.items()}

    def to_json(self) -> dict[str, Any]:
        """Return everything in a form that JSON can store. Floats are restored exactly, to the last bit."""
        return {"count": _as_json(self.count), **{name: getattr(self, name).tolist() for name in _ARRAYS}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Moments:
        """Restore moments from the result of ``to_json``."""
        arrays = {name: np.array(values[name], dtype=np.float64) for name in _ARRAYS}
        return cls(count=_from_json(values["count"]), **arrays)


@dataclass(frozen=True, kw_only=True)
class FieldStatistics:
    """Statistics of one field over any number of rows: moments, and one histogram a column (one in all if wide)."""

    moments: Moments
    buckets: list[NDArray[np.int32]]  # for each column, the sorted keys of the histogram's buckets
    counts: list[NDArray[np.int64]]
    bits: int

    @classmethod
    def of(cls, *parts: NDArray[Any]) -> FieldStatistics:
        """Compute the statistics of the finite values of all parts ``(rows, ...)``. Each part has at least one row."""
        return cls.with_moments([Moments.of(part) for part in parts], parts)

    @classmethod
    def with_moments(cls, moments: Sequence[Moments], parts: Sequence[NDArray[Any]]) -> FieldStatistics:
        """Compute the same statistics as ``of``, with the moments of each part already known."""
        wide = _is_wide(parts[0])
        histogram = _wide_histogram if wide else _narrow_histogram
        num_columns = len(moments[0].mean)
        columns = ([_columns(part)[i] for part in parts] for i in range(num_columns))
        merged = Moments.merged(moments)
        if np.min(merged.count) < sum(_columns(part).shape[1] for part in parts):
            columns = ([part[_is_finite(part)] for part in each] for each in columns)
        histograms = [histogram(each) for each in columns]
        return cls(
            moments=merged,
            buckets=[keys for keys, _ in histograms],
            counts=[counts for _, counts in histograms],
            bits=_WIDE_BITS if wide else _NARROW_BITS,
        )

    @classmethod
    def merged(cls, parts: Iterable[FieldStatistics]) -> FieldStatistics:
        """Merge statistics into those of all parts' rows together. There must be at least one part."""
        all_parts = list(parts)
        moments = Moments.merged([part.moments for part in all_parts])
        histograms = [
            _add_counts([p.buckets[i] for p in all_parts], [p.counts[i] for p in all_parts])
            for i in range(len(moments.mean))
        ]
        return cls(
            moments=moments,
            buckets=[keys for keys, _ in histograms],
            counts=[counts for _, counts in histograms],
            bits=all_parts[0].bits,
        )

    def quantiles(self, shares: Iterable[float]) -> list[NDArray[np.float64]]:
        """Return, for each share, each column's quantile, clipped to the column's min and max.

        A quantile is the middle of the lowest bucket at which the cumulative fraction of values reaches the share.
        """
        wanted = list(shares)
        columns = [_quantiles(k, c, wanted, self.bits) for k, c in zip(self.buckets, self.counts, strict=True)]
        limits = self.moments.to_dict()
        clipped: NDArray[np.float64] = np.clip(np.array(columns).T, limits["min"], limits["max"])
        return list(clipped)

    def summary(self) -> dict[str, Any]:
        """Return the statistics as plain lists, in the form of the manifest."""
        quantiles = zip(QUANTILES, self.quantiles(QUANTILES.values()), strict=True)
        return {
            "count": _as_json(self.moments.count),
            **self.moments.to_dict(),
            **{name: value.tolist() for name, value in quantiles},
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything in a form that JSON can store. Floats are restored exactly, to the last bit."""
        return {
            **self.moments.to_json(),
            "bits": self.bits,
            # As text: a shard has some hundred thousand buckets, and JSON takes a second for a list of them.
            "buckets": [base64.b64encode(keys.astype("<i4").tobytes()).decode() for keys in self.buckets],
            "counts": [base64.b64encode(counts.astype("<i8").tobytes()).decode() for counts in self.counts],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FieldStatistics:
        """Restore statistics from the result of ``to_dict``."""
        return cls(
            moments=Moments.from_json(values),
            bits=values["bits"],
            buckets=[np.frombuffer(base64.b64decode(keys), dtype="<i4") for keys in values["buckets"]],
            counts=[np.frombuffer(base64.b64decode(counts), dtype="<i8") for counts in values["counts"]],
        )


class Histograms:
    """The histograms of one field, one a column, to which those of other rows are added in any order."""

    def __init__(self) -> None:
        self._bits = 0
        self._buckets: list[NDArray[np.int32]] = []
        self._counts: list[NDArray[np.int64]] = []

    def add(self, other: FieldStatistics) -> None:
        """Add the histograms of other rows."""
        if not self._buckets:
            self._bits = other.bits
            self._buckets = [np.array(keys, dtype=np.int32) for keys in other.buckets]
            self._counts = [np.array(counts, dtype=np.int64) for counts in other.counts]
            return
        for column, (keys, counts) in enumerate(zip(other.buckets, other.counts, strict=True)):
            there = self._buckets[column]
            places = np.searchsorted(there, keys)
            is_known = np.zeros(len(keys), dtype=np.bool_)
            inside = places < len(there)
            is_known[inside] = there[places[inside]] == keys[inside]
            self._counts[column][places[is_known]] += counts[is_known]
            new = places[~is_known]
            if len(new):
                self._buckets[column] = np.insert(there, new, keys[~is_known])
                self._counts[column] = np.insert(self._counts[column], new, counts[~is_known])

    def with_moments(self, moments: Moments) -> FieldStatistics:
        """Return the statistics of all rows, of which these are the moments."""
        return FieldStatistics(moments=moments, buckets=self._buckets, counts=self._counts, bits=self._bits)


def _is_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask of the values that float32 can hold as finite numbers."""
    finite: NDArray[np.bool_] = np.abs(values) <= _MOST
    return finite


def _one_if_equal(counts: Count) -> Count:
    """Return one number if all counts are the same, otherwise the counts."""
    if isinstance(counts, int):
        return counts
    return int(counts[0]) if (counts == counts[0]).all() else counts


def _as_json(count: Count) -> int | list[int]:
    if isinstance(count, int):
        return count
    listed: list[int] = count.tolist()
    return listed


def _from_json(count: int | list[int]) -> Count:
    return count if isinstance(count, int) else np.array(count, dtype=np.int64)


def _is_wide(values: NDArray[Any]) -> bool:
    return math.prod(values.shape[1:]) > WIDE


def _columns(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values as ``(columns, rows)``, or as ``(1, values)`` if wide. Column-major values are not copied."""
    return values.reshape(1, -1) if _is_wide(values) else values.reshape(len(values), math.prod(values.shape[1:])).T


def _narrow_histogram(parts: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    keys = np.concatenate(parts, dtype=np.float32, casting="unsafe").view(np.int32)
    keys >>= 23 - _NARROW_BITS
    keys.sort()
    if not len(keys):
        return keys, np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.diff(starts, append=len(keys))


def _wide_histogram(parts: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Count one part at a time: wide fields are large, and their few possible keys fit a dense table."""
    dense = np.zeros(1 << 16, dtype=np.int64)
    for part in parts:
        keys = np.ascontiguousarray(part, dtype=np.float32).view(np.int32) >> (23 - _WIDE_BITS)
        dense += np.bincount((keys + (1 << 15)).astype(np.uint16), minlength=1 << 16)
    used = np.flatnonzero(dense)
    return (used - (1 << 15)).astype(np.int32), dense[used]


def _add_counts(
    keys: list[NDArray[np.int32]], counts: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    found, where = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.zeros(len(found), dtype=np.int64)
    np.add.at(total, where, np.concatenate(counts))
    return found, total


def _quantiles(keys: NDArray[np.int32], counts: NDArray[np.int64], shares: list[float], bits: int) -> list[float]:
    if not len(keys):
        return [0.0] * len(shares)
    low = (keys << (23 - bits)).astype(np.int32).view(np.float32).astype(np.float64)
    high = ((keys << (23 - bits)) | ((1 << (23 - bits)) - 1)).astype(np.int32).view(np.float32).astype(np.float64)
    # The bucket next to zero holds zero and all numbers too small to tell from zero.
    middle = np.where(np.abs(high) < np.finfo(np.float32).tiny, 0.0, (low + high) / 2)
    order = np.argsort(middle)
    ranks = np.cumsum(counts[order])
    return [float(middle[order[np.argmax(ranks >= q * ranks[-1])]]) for q in shares]
