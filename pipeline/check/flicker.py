"""Finds columns that only flicker: a joint that is held still, and whose encoder jumps between neighbouring steps.

Such a column has a tiny standard deviation. Divided by that deviation, its noise weighs as much as a joint's motion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.check.episode_rows import EVIDENCE, FindingsOf, Row, files_of
from vlapipe.pipeline.check.location import column_name
from vlapipe.pipeline.check.spikes import columns_with_statistics, unit_of, widest_by_unit
from vlapipe.pipeline.check.values import by_column, missing_of
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec, ImageStream, Schema

__all__ = ["Flicker", "FlickerSums", "check_flicker", "flickering_columns", "still_columns_of"]

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
    for path, spec in fields.items():
        rows = streams.get(path.partition("/")[0])
        if rows is None or rows.num_rows < _LEAST_ROWS or spec.words:
            continue
        for column, span in enumerate(spans[path]):
            if 0 < span < _TINY_IN_EPISODE * widest[unit_of(path, spec, column)]:
                values = by_column(rows.fields[spec.name])[:, column].astype(np.float64)
                missing = missing_of(rows, spec)
                kept = values if missing is None else values[~missing[:, column]]
                found.setdefault(path, {})[str(column)] = (
                    column_name(rows, spec, column),
                    _is_noise(kept, spec, column),
                )
    return found


def _is_noise(values: NDArray[np.float64], field: FieldSpec, column: int) -> bool:
    values = values[np.isfinite(values)]
    if len(values) < _LEAST_ROWS:
        return False
    unit = field.unit[column % len(field.unit)] if field.unit else ""
    rough = float(np.square(np.diff(values)).mean()) > _ROUGH * float(values.var())
    return rough or (unit in _ANGLES and len(np.unique(values)) <= _FEW_STEPS)


@dataclass(kw_only=True)
class FlickerSums:
    """What tells which columns flicker, over some episodes; sums of several sets of episodes can be merged.

    By path of a field: the limits of its columns, and the number of episodes in which each column varies. By path and
    column: in how many episodes it looks like noise, and its name in the first of these.
    """

    low: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    high: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    num_varying: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    noisy: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[Mapping[str, Any], Flicker]], schema: Schema) -> FlickerSums:
        """Sum up episodes: of each its row of the episodes table, and the result of ``still_columns_of``."""
        found = cls()
        for row, still in rows:
            for path, _ in columns_with_statistics(schema, row["statistics"]):
                each = row["statistics"][path]
                found._add(path, np.asarray([each["min"]]), np.asarray([each["max"]]))
            found._add_noise(still)
        return found

    @classmethod
    def of_table(cls, statistics: pa.StructArray, still: Iterable[Flicker], schema: Schema) -> FlickerSums:
        """Sum up episodes by their column of statistics, and by what is known to be still. No row becomes Python."""
        found = cls()
        streams = [stream for stream in schema.streams if not isinstance(stream, ImageStream)]
        columns = {f"{stream.name}/{each.name}": each.num_columns for stream in streams for each in stream.fields}
        for path in columns.keys() & {each.name for each in statistics.type}:
            own, count = statistics.field(path), columns[path]
            own = own.filter(own.is_valid())
            own = own.filter(pc.equal(pc.list_value_length(own.field(own.type.get_field_index("mean"))), count))
            if len(own):
                low, high = (
                    own.field(own.type.get_field_index(name)).flatten().to_numpy(zero_copy_only=False)
                    for name in ("min", "max")
                )
                found._add(path, low.reshape(-1, count), high.reshape(-1, count))
        for each in still:
            found._add_noise(each)
        return found

    @classmethod
    def merged(cls, parts: Iterable[FlickerSums]) -> FlickerSums:
        """Merge the sums of several sets of episodes, in this order."""
        found = cls()
        for part in parts:
            for path, low in part.low.items():
                found._add_limits(path, low, part.high[path], part.num_varying[path])
            for key, (count, name) in part.noisy.items():
                before, first = found.noisy.get(key, (0, name))
                found.noisy[key] = (before + count, first)
        return found

    def columns(self, schema: Schema) -> dict[str, dict[int, str]]:
        """Returns the names of the columns that flicker; see ``flickering_columns``."""
        spans = {path: self.high[path] - self.low[path] for path in self.low}
        found: dict[str, dict[int, str]] = {}
        widest = widest_by_unit(spans, schema) if self.noisy else {}
        for (path, column), (count, name) in self.noisy.items():
            is_tiny = spans[path][column] < _TINY * widest[unit_of(path, schema.field(path), column)]
            if 2 * count > self.num_varying[path][column] and is_tiny:
                found.setdefault(path, {})[column] = name
        return found

    def to_json(self) -> dict[str, Any]:
        """Returns the sums as plain data."""
        limits = {path: [self.low[path].tolist(), self.high[path].tolist()] for path in self.low}
        varying = {path: each.tolist() for path, each in self.num_varying.items()}
        return {"limits": limits, "varying": varying, "noisy": [[*key, *each] for key, each in self.noisy.items()]}

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> FlickerSums:
        """Restore the sums from the result of ``to_json``."""
        return cls(
            low={path: np.array(low) for path, (low, _) in told["limits"].items()},
            high={path: np.array(high) for path, (_, high) in told["limits"].items()},
            num_varying={path: np.array(each, dtype=np.int64) for path, each in told["varying"].items()},
            noisy={(path, column): (count, name) for path, column, count, name in told["noisy"]},
        )

    def _add(self, path: str, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Add the limits of a field in some episodes ``(episodes, columns)``."""
        self._add_limits(path, low.min(axis=0), high.max(axis=0), (high > low).sum(axis=0))

    def _add_limits(
        self, path: str, low: NDArray[np.float64], high: NDArray[np.float64], num_varying: NDArray[np.int64]
    ) -> None:
        self.low[path] = np.minimum(self.low.get(path, low), low)
        self.high[path] = np.maximum(self.high.get(path, high), high)
        self.num_varying[path] = self.num_varying.get(path, np.zeros_like(num_varying)) + num_varying

    def _add_noise(self, still: Flicker) -> None:
        for path, columns in still.items():
            for number, (name, is_noise) in columns.items():
                if is_noise:
                    count, first = self.noisy.get((path, int(number)), (0, name))
                    self.noisy[path, int(number)] = (count + 1, first)


def flickering_columns(rows: Iterable[tuple[Mapping[str, Any], Flicker]], schema: Schema) -> dict[str, dict[int, str]]:
    """Returns the names of the columns that only flicker in the whole dataset, by path of a field and column.

    A column flickers if it stays within a hundredth of the widest column of its unit over all episodes, and looks like
    noise in most of the episodes in which it varies.

    Args:
        rows: for each episode its row of the episodes table, and the result of ``still_columns_of``.
        schema: names the fields.
    """
    return FlickerSums.of_rows(rows, schema).columns(schema)


def check_flicker(rows: Iterable[Row], schema: Schema, findings_of: FindingsOf) -> None:
    """Reports the columns that only flicker, once for the dataset, at the first episode in which they do.

    Args:
        rows: for each episode its row of the episodes table, with its evidence. They are gone through twice.
        schema: names the fields.
        findings_of: returns what collects the findings of an episode, by its number and row.
    """
    flickering = flickering_columns(((row, row[EVIDENCE]["still"]) for row in rows), schema)
    seen: dict[tuple[str, int], _Span] = {}
    for number, row in enumerate(rows) if flickering else ():
        for path in flickering.keys() & row[EVIDENCE]["still"].keys():
            for column in flickering[path]:
                if str(column) in row[EVIDENCE]["still"][path]:
                    of = row["statistics"][path]
                    seen.setdefault((path, column), _Span(number)).add(of["min"][column], of["max"][column])
                    if seen[path, column].number == number:
                        seen[path, column].findings = findings_of(number, row)
                        seen[path, column].file = files_of(row)[path.partition("/")[0]]
    for path, columns in flickering.items():
        spec = schema.field(path)
        for column, name in columns.items():
            span = seen[path, column]
            scale = abs(spec.scale[column]) if spec.scale else 1.0
            low, high = span.low / scale, span.high / scale
            assert span.findings is not None
            span.findings.add(
                "value.flicker",
                span.file,
                column=name,
                expected="a column that moves as the others of its unit do, or that never changes",
                found=f"{low:.6g} to {high:.6g} in {span.count} episodes, as noise around one position",
            )


@dataclass
class _Span:
    """The limits of a column in the episodes in which it is still, and the first of them."""

    number: int
    low: float = math.inf
    high: float = -math.inf
    count: int = 0
    file: str = ""
    findings: Findings | None = None

    def add(self, low: float, high: float) -> None:
        self.low, self.high, self.count = min(self.low, low), max(self.high, high), self.count + 1
