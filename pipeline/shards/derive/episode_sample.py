"""Derives what training reads of one episode from its stored arrays: state columns, actions and times.

The caller gives a function that reads stored rows. So the same code serves ingest (rows in memory), unpacking (a whole
shard) and reading single rows out of a compressed shard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import (
    ACTION_ROW,
    action_fields,
    derive_actions,
    masks_of_action,
    rows_of_finite_actions,
)
from vlapipe.pipeline.shards.derive.aligned_fields import Placement, Use, aligned, place
from vlapipe.pipeline.shards.derive.derived_fields import derived_specs, rotation_6d
from vlapipe.pipeline.shards.derive.rows_in_time import action_rows
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.schema import ArrayStream, CsvStream, Schema

__all__ = ["EpisodeSample", "ReadRows", "foreign_streams", "stored_fields", "within_episode"]

ReadRows = Callable[[str, int, int], NDArray[Any]]  # (array's name, first row, past the last row), within the episode


class EpisodeSample:
    """What training reads of one episode. Rows are anchor rows, counted from the start of the episode."""

    def __init__(self, schema: Schema, read: ReadRows, num_rows: Mapping[str, int], *, chosen: bool) -> None:
        """Read nothing yet.

        Args:
            schema: the schema, whose sample and action are derived.
            read: reads rows of the episode's stored arrays.
            num_rows: the number of rows of each stream in the episode.
            chosen: whether the action is another one than the stored ``action/row`` belongs to.
        """
        self._schema, self._read, self._num_rows, self._chosen = schema, read, num_rows, chosen
        self._derived = derived_specs(schema)
        self._clocks: dict[str, NDArray[Any]] = {}
        self._times: dict[str, NDArray[np.float64]] = {}
        self._placements: dict[tuple[str, Use], Placement] = {}
        self._action_rows: NDArray[np.int32] | None = None

    @property
    def num_rows(self) -> int:
        """Returns the number of anchor rows."""
        return self._num_rows[self._schema.anchor]

    def clock(self, stream: str) -> NDArray[Any]:
        """Returns all timestamps of a stream, as they are stored."""
        if stream not in self._clocks:
            self._clocks[stream] = self._read(f"{stream}/timestamp", 0, self._num_rows[stream])
        return self._clocks[stream]

    def times(self, stream: str) -> NDArray[np.float64]:
        """Returns all times of a stream ``(rows,)`` in seconds since the first anchor row, exact to float64."""
        if stream not in self._times:
            self._times[stream] = self._since_begin(self.clock(stream))
        return self._times[stream]

    def _since_begin(self, clock: NDArray[Any]) -> NDArray[np.float64]:
        begin = self.clock(self._schema.anchor)[:1]
        if clock.dtype != begin.dtype:
            return seconds(clock) - seconds(begin)
        return seconds(clock - begin)

    def field(self, path: str, use: Use, start: int, stop: int) -> NDArray[Any]:
        """Returns a field at the anchor rows ``start <= i < stop``, ``(rows, ...)``.

        A field of another stream has the values that hold at the rows' times; see ``aligned_fields``.
        """
        if path in self._derived:
            of = self._derived[path][0]
            return rotation_6d(self._schema.field(of), self.field(of, use, start, stop))
        if self._schema.is_on_anchor(path):
            return self._read(path, start, stop)
        stream = path.partition("/")[0]
        placed = Placement(*(column[start:stop] for column in vars(self._placement(stream, use)).values()))
        first = stop_row = 0
        if self._num_rows[stream] and stop > start:
            first, stop_row = int(placed.before.min()), int(placed.after.max()) + 1
        return aligned(self._schema.field(path), self._read(path, first, stop_row), placed, first)

    def is_missing(self, paths: tuple[str, ...], use: Use, start: int, stop: int) -> NDArray[np.bool_]:
        """Returns the anchor rows ``(rows,)`` at which any of these fields has no value within its tolerance."""
        found = np.zeros(stop - start, dtype=bool)
        for stream in foreign_streams(self._schema, paths):
            found |= self._placement(stream, use).is_missing[start:stop]
        return found

    def state(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns the state fields side by side, ``(rows, D)``."""
        fields = [self.field(path, "state", start, stop) for path in self._schema.sample.state]
        flat = [field.reshape(stop - start, int(np.prod(field.shape[1:], dtype=int))) for field in fields]
        return np.concatenate(flat, axis=1, dtype=np.float32, casting="same_kind")

    def action_rows(self) -> NDArray[np.int32]:
        """Returns for every anchor row the row that its action looks ahead to, -1 if it has no action."""
        if self._action_rows is None:
            self._action_rows = self._chosen_rows() if self._chosen else self._read(ACTION_ROW, 0, self.num_rows)
        return self._action_rows

    def _chosen_rows(self) -> NDArray[np.int32]:
        rows = action_rows(self.clock(self._schema.anchor), self._schema)
        fields = self._action_fields(0, self.num_rows)
        return self.usable_actions(rows, fields)

    def usable_actions(self, rows: NDArray[np.int32], fields: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
        """Returns ``rows`` with -1 where a field has no value (within its tolerance), or the action is not finite.

        ``rows`` and ``fields`` are of the whole episode.
        """
        missing = self.is_missing(tuple(action_fields(self._schema)), "action", 0, self.num_rows)
        for mask in masks_of_action(self._schema):
            missing |= self.field(mask, "action", 0, self.num_rows).reshape(self.num_rows, -1).any(axis=1)
        if missing.any():
            rows = np.where(missing | missing[np.maximum(rows, 0)], np.int32(-1), rows)
        return rows_of_finite_actions(self._schema, fields, rows)

    def actions(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns the actions of anchor rows, ``(rows, A)``, zero where there is none; see ``derive_actions``."""
        ahead = self.action_rows()[start:stop] if self._chosen else self._read(ACTION_ROW, start, stop)
        end = max(stop, int(ahead.max(initial=-1)) + 1)
        rows = np.full(end - start, -1, dtype=np.int32)
        rows[: stop - start] = np.where(ahead < 0, -1, ahead - start)
        return derive_actions(self._schema, self._action_fields(start, end), rows)[: stop - start]

    def _action_fields(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        return {path: self.field(path, "action", start, stop) for path in action_fields(self._schema)}

    def _placement(self, stream: str, use: Use) -> Placement:
        if (stream, use) not in self._placements:
            spec = self._schema.stream(stream)
            assert isinstance(spec, CsvStream | ArrayStream)
            anchor, clock = self.clock(self._schema.anchor), self.clock(stream)
            self._placements[stream, use] = place(spec, use, anchor, clock)
        return self._placements[stream, use]


def within_episode(schema: Schema, begins: Mapping[str, int], read: ReadRows) -> ReadRows:
    """Returns a reader of one episode's rows, made of a reader of a shard's rows.

    ``begins`` has the shard's row at which the episode begins in each stream. Arrays of actions lie with the anchor.
    """

    def read_own(name: str, start: int, stop: int) -> NDArray[Any]:
        stream = name.partition("/")[0]
        begin = begins[schema.anchor if stream == "action" else stream]
        return read(name, begin + start, begin + stop)

    return read_own


def foreign_streams(schema: Schema, paths: tuple[str, ...]) -> list[str]:
    """Returns the streams beside the anchor that these fields belong to, each once."""
    streams = (path.partition("/")[0] for path in paths)
    return [stream for stream in dict.fromkeys(streams) if stream != schema.anchor]


def stored_fields(schema: Schema, paths: tuple[str, ...]) -> list[str]:
    """Returns the stored fields that these fields are or follow from, each once."""
    derived = derived_specs(schema)
    return list(dict.fromkeys(derived[path][0] if path in derived else path for path in paths))
