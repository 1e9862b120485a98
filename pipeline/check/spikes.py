"""Finds single readings that lie enormously farther out than all others of their column, such as an encoder's 65535.

One such reading sets a column's scale, so that a policy no longer sees the column's real motion. An episode alone
cannot tell a spike from the only motion of a joint. So each episode gives its outliers, and the dataset decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.episode_rows import EVIDENCE, FindingsOf, Row, files_of
from vlapipe.pipeline.check.location import column_name
from vlapipe.pipeline.check.values import by_column, missing_of
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.schema import FieldSpec, ImageStream, Schema

__all__ = ["check_spikes", "columns_with_statistics", "outliers_of", "unit_of", "widest_by_unit"]

_LEAST_ROWS = 10
_MOST = 0.01  # share of an episode's rows that may be outliers of one column, but always 3 rows
_POSITIONS = ("deg", "rad", "turn", "m", "mm", "cm", "um")
# How many times the span of all other values an outlier must lie beyond them. A position cannot jump and come back
# within a few rows. A force can: an impact is no fault of the sensor.
_FACTOR, _POSITION_FACTOR = 10.0, 4.0
_CONSTANT_FACTOR = 1000.0  # for a column that never changes otherwise: how many times its value

Outlier = dict[str, Any]


def columns_with_statistics(schema: Schema, statistics: Mapping[str, Any]) -> Iterator[tuple[str, FieldSpec]]:
    """Yields the path and the field of each stored field of numbers that has statistics for each of its columns."""
    for stream in schema.streams:
        if isinstance(stream, ImageStream):
            continue
        for field in stream.fields:
            path = f"{stream.name}/{field.name}"
            if path in statistics and len(statistics[path]["mean"]) == field.num_columns:
                yield path, field


def outliers_of(rows: StreamRows, field: FieldSpec, statistics: Mapping[str, list[float]]) -> list[Outlier]:
    """Returns the outliers of one episode, one entry for each column of the field that has any.

    An entry has the column's number and name, the line and value of the first outlier, the number of outliers, and
    ``low`` and ``high``, the limits of all other values.

    Args:
        rows: the field's stream.
        field: a field of numbers.
        statistics: mean, std, min and max of the field's columns in this episode. They rule out nearly every column,
            so that the exact search is rare.
    """
    num_rows = rows.num_rows
    if num_rows < _LEAST_ROWS:
        return []
    most = max(3, int(_MOST * num_rows))
    share, factor = most / num_rows, 2 * min(_FACTOR, _POSITION_FACTOR)
    # The smallest distance, in standard deviations, of ``most`` equal outliers at ``factor`` times the other values.
    least = 0.9 * (1 - share) / math.sqrt(factor**-2 + share)
    each = zip(*(statistics[name] for name in ("mean", "std", "min", "max")), strict=True)
    suspects = [
        column for column, (mean, std, low, high) in enumerate(each) if max(high - mean, mean - low) > least * std
    ]
    outliers = (_outliers_of_column(rows, field, column, most) for column in suspects)
    return [outlier for outlier in outliers if outlier is not None]


def _outliers_of_column(rows: StreamRows, field: FieldSpec, column: int, most: int) -> Outlier | None:
    values = by_column(rows.fields[field.name])[:, column].astype(np.float64)
    missing = missing_of(rows, field)
    usable = np.flatnonzero(np.isfinite(values) if missing is None else np.isfinite(values) & ~missing[:, column])
    if len(usable) < _LEAST_ROWS:
        return None
    apart = np.abs(values[usable] - np.median(values[usable]))
    body = np.partition(apart, len(apart) - 1 - most)[len(apart) - 1 - most]
    far = apart > 2 * _factor(field, column) * body
    if not far.any():
        return None
    others: NDArray[np.float64] = values[usable[~far]]
    row = int(usable[far][0])
    return {
        "column": column,
        "name": column_name(rows, field, column),
        "line": rows.line_of(row),
        "row": row,
        "value": float(values[row]),
        "count": int(np.count_nonzero(far)),
        "low": float(others.min()),
        "high": float(others.max()),
    }


def _factor(field: FieldSpec, column: int) -> float:
    unit = field.unit[column % len(field.unit)] if field.unit else ""
    return _POSITION_FACTOR if unit in _POSITIONS else _FACTOR


def check_spikes(rows: Iterable[Row], schema: Schema, findings_of: FindingsOf) -> None:
    """Reports the outliers that lie far beyond the values of every episode.

    Args:
        rows: for each episode its row of the episodes table, with its evidence. They are gone through twice.
        schema: names the fields.
        findings_of: returns what collects the findings of an episode, by its number and row.
    """
    spans = _spans(rows, schema)
    widest = widest_by_unit({path: each[1] - each[0] for path, each in spans.items()}, schema)
    for number, row in enumerate(rows):
        for path, each in row[EVIDENCE]["outliers"].items():
            field = schema.field(path)
            for outlier in each:
                low, high = spans[path][:, outlier["column"]]
                beyond = max(outlier["value"] - high, low - outlier["value"])
                if not beyond > _limit(
                    field, outlier["column"], low, high, widest[unit_of(path, field, outlier["column"])]
                ):
                    continue
                scale = abs(field.scale[outlier["column"]]) if field.scale else 1.0
                line, place = outlier["line"], ""
                if line is None:
                    place = f" in row {outlier['row']} (counted from 0)"
                findings_of(number, row).add(
                    "value.spike",
                    files_of(row)[path.partition("/")[0]],
                    line=line,
                    column=outlier["name"],
                    expected=f"a value near the others, which lie from {low / scale:.6g} to {high / scale:.6g}",
                    found=f"{outlier['value'] / scale:.6g}{place}",
                    count=outlier["count"],
                )


def _spans(rows: Iterable[Row], schema: Schema) -> dict[str, NDArray[np.float64]]:
    """Returns the lowest and highest value of each column without its outliers, ``(2, columns)``, by path."""
    spans: dict[str, NDArray[np.float64]] = {}
    for row in rows:
        for path, _ in columns_with_statistics(schema, row["statistics"]):
            low, high = (np.array(row["statistics"][path][name]) for name in ("min", "max"))
            for outlier in row[EVIDENCE]["outliers"].get(path, ()):
                low[outlier["column"]], high[outlier["column"]] = outlier["low"], outlier["high"]
            known = spans.get(path)
            spans[path] = np.stack(
                [low, high] if known is None else [np.minimum(low, known[0]), np.maximum(high, known[1])]
            )
    return spans


def _limit(field: FieldSpec, column: int, low: float, high: float, widest: float) -> float:
    """Returns how far beyond all others, which lie from ``low`` to ``high``, a value of the column may lie.

    A column that never changes otherwise is measured by the widest span of its unit in the stream, else by its value.
    """
    if high > low:
        return float(_factor(field, column) * (high - low))
    return _factor(field, column) * widest or _CONSTANT_FACTOR * abs(float(low)) or float("inf")


def unit_of(path: str, field: FieldSpec, column: int) -> tuple[str, str]:
    """Returns what the column's span may be compared with: its unit in its stream; without a unit, its field alone."""
    unit = field.unit[column % len(field.unit)] if field.unit else ""
    return (path.partition("/")[0], unit) if unit else (path, "")


def widest_by_unit(spans: Mapping[str, Sequence[float] | NDArray[np.float64]], schema: Schema) -> dict[Any, float]:
    """Returns the largest span of all columns that may be compared, by ``unit_of``; ``spans`` are by path."""
    widest: dict[Any, float] = {}
    for path, span in spans.items():
        field = schema.field(path)
        for column, width in enumerate(span):
            key = unit_of(path, field, column)
            widest[key] = max(widest.get(key, 0.0), float(width))
    return widest
