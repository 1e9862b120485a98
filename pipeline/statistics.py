"""Counts, moments and quantiles of fields, merged without going back to the rows.

Moments are merged pairwise (Chan, Golub, LeVeque 1979); ingest merges in the plan's order, so the bits do not depend
on who finished first. Quantiles come from a histogram whose buckets are the leading
bits of the float32 value, so merging is adding counts: with 11 bits of mantissa a quantile is within 0.025 % of the
right value, with 7 (wide fields) within 0.4 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "WIDE", "FieldStatistics"]

WIDE = 64  # a row with more numbers than this is summarised by one number, not one a column
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_NARROW_BITS, _WIDE_BITS = 11, 7


@dataclass(kw_only=True)
class FieldStatistics:
    """Statistics of one field over any number of rows; arrays are float64, one entry a column (one in all if wide)."""

    count: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]  # sum of squared differences from the mean
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    buckets: list[NDArray[np.int32]]  # one a column: sorted keys of the histogram's buckets
    counts: list[NDArray[np.int64]]
    bits: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> FieldStatistics:
        """Statistics of ``(rows, ...)`` finite values."""
        by_row = values.reshape(len(values), -1)
        wide = by_row.shape[1] > WIDE
        columns = by_row.reshape(-1, 1) if wide else by_row
        mean = columns.mean(axis=0, dtype=np.float64)
        squares = [_sum_of_squares(columns[:, i], mean[i]) for i in range(columns.shape[1])]
        bits = _WIDE_BITS if wide else _NARROW_BITS
        histograms = [_histogram(columns[:, i], bits) for i in range(columns.shape[1])]
        return cls(
            count=len(columns),
            mean=mean,
            m2=np.array(squares),
            min=columns.min(axis=0).astype(np.float64),
            max=columns.max(axis=0).astype(np.float64),
            buckets=[keys for keys, _ in histograms],
            counts=[counts for _, counts in histograms],
            bits=bits,
        )

    @classmethod
    def merged(cls, parts: Iterable[FieldStatistics]) -> FieldStatistics:
        """Statistics of all the parts' rows together; at least one part."""
        first, *others = parts
        count, mean, m2 = first.count, first.mean, first.m2
        for other in others:
            total = count + other.count
            apart = other.mean - mean
            m2 = m2 + other.m2 + apart**2 * (count * other.count / total)
            mean = mean + apart * (other.count / total)
            count = total
        all_parts = [first, *others]
        histograms = [
            _add_counts([p.buckets[i] for p in all_parts], [p.counts[i] for p in all_parts]) for i in range(len(mean))
        ]
        return cls(
            count=count,
            mean=mean,
            m2=m2,
            min=np.min([p.min for p in all_parts], axis=0),
            max=np.max([p.max for p in all_parts], axis=0),
            buckets=[keys for keys, _ in histograms],
            counts=[counts for _, counts in histograms],
            bits=first.bits,
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation (of the population)."""
        deviation: NDArray[np.float64] = np.sqrt(self.m2 / self.count)
        return deviation

    def quantile(self, q: float) -> NDArray[np.float64]:
        """The smallest bucket's value at or below which a share ``q`` of the values lies, kept within min and max."""
        values = [_quantile(k, c, q, self.bits) for k, c in zip(self.buckets, self.counts, strict=True)]
        clipped: NDArray[np.float64] = np.clip(np.array(values), self.min, self.max)
        return clipped

    def summary(self) -> dict[str, Any]:
        """As the manifest has it: plain lists."""
        numbers = {"mean": self.mean, "std": self.std, "min": self.min, "max": self.max}
        numbers |= {name: self.quantile(q) for name, q in QUANTILES.items()}
        return {"count": self.count, **{name: value.tolist() for name, value in numbers.items()}}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain lists; floats survive JSON to the last bit."""
        arrays = {"mean": self.mean, "m2": self.m2, "min": self.min, "max": self.max}
        return {
            "count": self.count,
            "bits": self.bits,
            **{name: value.tolist() for name, value in arrays.items()},
            "buckets": [keys.tolist() for keys in self.buckets],
            "counts": [counts.tolist() for counts in self.counts],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FieldStatistics:
        """What ``to_dict`` gave."""
        arrays = {name: np.array(values[name], dtype=np.float64) for name in ("mean", "m2", "min", "max")}
        return cls(
            count=values["count"],
            bits=values["bits"],
            **arrays,
            buckets=[np.array(keys, dtype=np.int32) for keys in values["buckets"]],
            counts=[np.array(counts, dtype=np.int64) for counts in values["counts"]],
        )


def _sum_of_squares(column: NDArray[Any], mean: float) -> float:
    apart = column.astype(np.float64)
    apart -= mean
    # Not a dot product: BLAS splits it by its number of threads, and the last bit then differs between workers.
    return float(np.square(apart, out=apart).sum())


def _histogram(column: NDArray[Any], bits: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    raw = np.ascontiguousarray(column, dtype=np.float32).view(np.int32)
    keys = raw >> (23 - bits)
    if bits == _WIDE_BITS:
        dense = np.bincount((keys + (1 << 15)).astype(np.uint16), minlength=1 << 16)
        used = np.flatnonzero(dense)
        return (used - (1 << 15)).astype(np.int32), dense[used].astype(np.int64)
    found, counts = np.unique(keys, return_counts=True)
    return found, counts.astype(np.int64)


def _add_counts(
    keys: list[NDArray[np.int32]], counts: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    found, where = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.zeros(len(found), dtype=np.int64)
    np.add.at(total, where, np.concatenate(counts))
    return found, total


def _quantile(keys: NDArray[np.int32], counts: NDArray[np.int64], q: float, bits: int) -> float:
    low = (keys << (23 - bits)).astype(np.int32).view(np.float32).astype(np.float64)
    high = ((keys << (23 - bits)) | ((1 << (23 - bits)) - 1)).astype(np.int32).view(np.float32).astype(np.float64)
    # The bucket next to zero holds zero itself and numbers too small to tell from it.
    middle = np.where(np.abs(high) < np.finfo(np.float32).tiny, 0.0, (low + high) / 2)
    order = np.argsort(middle)
    reached = np.cumsum(counts[order]) >= q * counts.sum()
    return float(middle[order][np.argmax(reached)])
