"""Finds columns that only flicker: a joint that is held still, and whose encoder jumps between neighbouring steps.

Such a column has a tiny standard deviation. Divided by that deviation, its noise weighs as much as a joint's motion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.location import column_name
from vlapipe.pipeline.check.spikes import columns_with_statistics, unit_of, widest_by_unit
from vlapipe.pipeline.check.values import by_column, missing_of
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec, Schema

__all__ = ["Flicker", "check_flicker", "flickering_columns", "still_columns_of"]

_LEAST_ROWS = 20
_TINY = 0.01  # span of a column that only flickers, divided by the widest span of a column of the same unit
_TINY_IN_EPISODE = 0.1  # a looser limit for one episode, in which all other columns may move little
# Mean squared step between rows, divided by the variance: 2 for white noise, 4 p for a value that jumps between two
# steps in a share p of the rows, near 0 for motion and for a gripper that opens and closes.
_ROUGH = 0.3
_FEW_STEPS = 4  # an angle with so few distinct values is no motion, even if it is not rough
_ANGLES = ("deg", "rad", "turn")

# By path of a field, then by the column's number as text (as JSON has it): the column's name and whether its values
# look like noise around one position.
Flicker = dict[str, dict[str, tuple[str, bool]]]


def still_columns_of(streams: Mapping[str, StreamRows], schema: Schema, statistics: Mapping[str, Any]) -> Flicker:
    """Returns the columns of one episode that vary, but little against the other columns of their unit.

    Args:
        streams: the streams that are no cameras.
        schema: names the fields.
        statistics: the episode's min and max by path of a field. They rule out nearly every column.
    """
    fields = dict(columns_with_statistics(schema, statistics))
    spans = {
        path: [high - low for low, high in zip(statistics[path]["min"], statistics[path]["max"], strict=True)]
        for path in fields
    }
    widest = widest_by_unit(spans, schema)
    found: Flicker = {}
    for path, field in fields.items():
        rows = streams.get(path.partition("/")[0])
        if rows is None or rows.num_rows < _LEAST_ROWS or field.words:
            continue
        for column, span in enumerate(spans[path]):
            if 0 < span < _TINY_IN_EPISODE * widest[unit_of(path, field, column)]:
                values = by_column(rows.fields[field.name])[:, column].astype(np.float64)
                missing = missing_of(rows, field)
                kept = values if missing is None else values[~missing[:, column]]
                found.setdefault(path, {})[str(column)] = (
                    column_name(rows, field, column),
                    _is_noise(kept, field, column),
                )
    return found


def _is_noise(values: NDArray[np.float64], field: FieldSpec, column: int) -> bool:
    values = values[np.isfinite(values)]
    if len(values) < _LEAST_ROWS:
        return False
    unit = field.unit[column % len(field.unit)] if field.unit else ""
    rough = float(np.square(np.diff(values)).mean()) > _ROUGH * float(values.var())
    return rough or (unit in _ANGLES and len(np.unique(values)) <= _FEW_STEPS)


def flickering_columns(rows: Iterable[tuple[Mapping[str, Any], Flicker]], schema: Schema) -> dict[str, dict[int, str]]:
    """Returns the names of the columns that only flicker in the whole dataset, by path of a field and column.

    A column flickers if it stays within a hundredth of the widest column of its unit over all episodes, and looks like
    noise in most of the episodes in which it varies.

    Args:
        rows: for each episode its row of the episodes table, and the result of ``still_columns_of``.
        schema: names the fields.
    """
    low: dict[str, NDArray[np.float64]] = {}
    high: dict[str, NDArray[np.float64]] = {}
    num_varying: dict[str, NDArray[np.int64]] = {}
    noisy: dict[tuple[str, int], list[str]] = {}
    for row, still in rows:
        for path, _ in columns_with_statistics(schema, row["statistics"]):
            each = row["statistics"][path]
            least, most = np.asarray(each["min"]), np.asarray(each["max"])
            low[path] = np.minimum(low.get(path, least), least)
            high[path] = np.maximum(high.get(path, most), most)
            num_varying[path] = num_varying.get(path, np.zeros(len(least), dtype=np.int64)) + (most > least)
        for path, found_there in still.items():
            for number, (name, is_noise) in found_there.items():
                if is_noise:
                    noisy.setdefault((path, int(number)), []).append(name)
    spans = {path: high[path] - low[path] for path in low}
    found: dict[str, dict[int, str]] = {}
    widest = widest_by_unit(spans, schema) if noisy else {}
    for (path, column), names in noisy.items():
        is_tiny = spans[path][column] < _TINY * widest[unit_of(path, schema.field(path), column)]
        if 2 * len(names) > num_varying[path][column] and is_tiny:
            found.setdefault(path, {})[column] = names[0]
    return found


def check_flicker(
    episodes: Sequence[tuple[Mapping[str, Any], Flicker, Mapping[str, str]]],
    schema: Schema,
    findings: Mapping[str, Findings],
) -> None:
    """Reports the columns that only flicker, once for the dataset, at the first episode in which they do.

    Args:
        episodes: for each episode its row of the episodes table, the result of ``still_columns_of``, and the source
            file of each stream.
        schema: names the fields.
        findings: collects the findings of each episode, by the episode's id.
    """
    for path, columns in flickering_columns(((row, still) for row, still, _ in episodes), schema).items():
        field = schema.field(path)
        for column, name in columns.items():
            ours = [(row, files) for row, still, files in episodes if str(column) in still.get(path, {})]
            low = min(row["statistics"][path]["min"][column] for row, _ in ours)
            high = max(row["statistics"][path]["max"][column] for row, _ in ours)
            scale = abs(field.scale[column]) if field.scale else 1.0
            row, files = ours[0]
            findings[row["id"]].add(
                "value.flicker",
                files[path.partition("/")[0]],
                column=name,
                expected="a column that moves as the others of its unit do, or that never changes",
                found=f"{low / scale:.6g} to {high / scale:.6g} in {len(ours)} episodes, as noise around one position",
            )
