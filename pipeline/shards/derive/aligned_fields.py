"""Brings the fields of one stream to the times of another: each anchor row gets the value that holds at its time.

So state and action may come from several streams, and a sample still reads them as one table. Ingest (for statistics
and findings) and unpacking (for training) both use this module, so there is only one way of doing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.schema import ArrayStream, CsvStream, FieldSpec

__all__ = ["DEFAULT_STEPS", "Placement", "Use", "aligned", "place", "tolerance_s"]

Use = Literal["state", "action"]
DEFAULT_STEPS = 5  # without a declared tolerance, a value may be this many mean steps of its clock away


@dataclass(frozen=True)
class Placement:
    """Where N anchor rows lie among the rows of another stream.

    The value of an anchor row lies between the rows ``before`` and ``after``, ``weight`` of the way. Both are the same
    row unless the value is interpolated. ``is_missing`` marks anchor rows that are too far away from any row. All
    arrays are ``(N,)``.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    weight: NDArray[np.float64]
    is_missing: NDArray[np.bool_]


def tolerance_s(stream: CsvStream | ArrayStream, clock: NDArray[Any]) -> float:
    """Returns how far away in time a value may be: as declared, else ``max_gap_s``, else five mean steps of ``clock``.

    ``clock`` has the timestamps of the stream's whole episode.
    """
    declared = stream.tolerance_s if stream.tolerance_s is not None else stream.max_gap_s
    if declared is not None:
        return declared
    if len(clock) < 2:
        return 0.0
    return DEFAULT_STEPS * float(seconds(clock[-1:] - clock[:1])[0]) / (len(clock) - 1)


def place(stream: CsvStream | ArrayStream, use: Use, anchor: NDArray[Any], clock: NDArray[Any]) -> Placement:
    """Finds the anchor's times ``(N,)`` in the clock ``(M,)`` of a stream, by the stream's declared ``align``.

    ``last`` takes the last row at or before the time, ``nearest`` the nearest row (the earlier one of two), and
    ``linear`` the two rows around the time. Before the first row and after the last one, ``linear`` takes that row.
    Without a declaration, a state takes the last row. An action takes the first row at or after the time, so that no
    action lies before its state.
    """
    num_rows, method = len(clock), stream.align or ("last" if use == "state" else "first")
    if not num_rows:
        none = np.zeros(len(anchor), dtype=np.int64)
        return Placement(none, none, np.zeros(len(anchor)), np.ones(len(anchor), dtype=bool))
    limit = tolerance_s(stream, clock)
    if anchor.dtype != clock.dtype:
        anchor, clock = seconds(anchor), seconds(clock)
    last = np.searchsorted(clock, anchor, side="right").astype(np.int64) - 1
    first = np.searchsorted(clock, anchor, side="left").astype(np.int64)
    before, after = np.maximum(last, 0), np.minimum(first, num_rows - 1)
    behind, ahead = seconds(anchor - clock[before]), seconds(clock[after] - anchor)  # negative outside the clock
    weight = np.zeros(len(anchor))
    if method == "last":
        after, is_missing = before, (last < 0) | (behind > limit)
    elif method == "first":
        before, is_missing = after, (first >= num_rows) | (ahead > limit)
    elif method == "nearest":
        before = after = np.where(np.abs(behind) <= np.abs(ahead), before, after)
        is_missing = np.minimum(np.abs(behind), np.abs(ahead)) > limit
    else:
        before, after = np.where(last < 0, after, before), np.where(first >= num_rows, before, after)
        after = np.maximum(after, before)  # of several rows that share the anchor's time, the last one
        behind, ahead = np.abs(seconds(anchor - clock[before])), np.abs(seconds(clock[after] - anchor))
        is_missing = np.maximum(behind, ahead) > limit
        is_between = before != after
        weight[is_between] = behind[is_between] / (behind + ahead)[is_between]
    return Placement(before, after, weight, is_missing)


def aligned(field: FieldSpec, values: NDArray[Any], placed: Placement, first: int = 0) -> NDArray[Any]:
    """Returns a field's values at N anchor rows, ``(N, ...)``, in the field's dtype; zeros if the stream has no row.

    Angles with a period go the shorter way round, and quaternions turn at an even speed (slerp). Values that are not
    continuous are not interpolated: whole numbers, words and masks have the value of the row before.

    Args:
        field: the field's specification.
        values: the stream's rows from row ``first`` on, as many as ``placed`` needs.
        placed: where the anchor rows lie.
        first: the row that ``values`` begins with.
    """
    if not len(values):
        return np.zeros((len(placed.before), *values.shape[1:]), dtype=values.dtype)
    one = values[placed.before - first]
    if values.dtype.kind != "f" or field.words or not placed.weight.any():
        return one
    other = values[placed.after - first].astype(np.float64)
    weight = placed.weight.reshape(-1, *[1] * (values.ndim - 1))
    begin = one.astype(np.float64)
    if field.quaternion:
        between = _slerp(begin, other, weight)
    else:
        change = other - begin
        _wrap_columns(change, field.period)
        # Each half is measured from its own end, so that an angle stays on the side of the wrap where its row is.
        between = np.where(weight < 0.5, begin + weight * change, other - (1 - weight) * change)
    return np.where(weight == 0, begin, between).astype(values.dtype)


def _wrap_columns(change: NDArray[np.float64], period: tuple[float, ...]) -> None:
    for i, length in enumerate(period):
        if length:
            columns = change[..., i] if change.ndim > 1 else change
            columns -= length * np.rint(columns / length)


def _slerp(one: NDArray[np.float64], other: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns unit quaternions ``(N, 4)`` on the shorter arc between two quaternions, which need not be unit ones."""
    one, other = _unit(one), _unit(other)
    cosine = (one * other).sum(axis=1, keepdims=True)
    other, cosine = np.where(cosine < 0, -other, other), np.minimum(np.abs(cosine), 1.0)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    is_near = sine < 1e-6  # the arc is then a straight line, and the formula would divide zero by zero
    sine = np.where(is_near, 1.0, sine)
    of_one = np.where(is_near, 1 - weight, np.sin((1 - weight) * angle) / sine)
    of_other = np.where(is_near, weight, np.sin(weight * angle) / sine)
    return _unit(of_one * one + of_other * other)


def _unit(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    unit: NDArray[np.float64] = quaternions / np.where(length > 0, length, 1.0)
    return unit
