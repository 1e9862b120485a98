"""Finds the rows of the shard that each sample of a batch needs, stream by stream, and marks missing rows.

Shape letters: N samples, T rows of a window, H action horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, ACTION_STRIDE_ORDER, position_in_stride_order
from vlapipe.pipeline.shards.mapped.layout import STATE, STATE_IS_MISSING, TIME
from vlapipe.train.data.dataset_group import ANCHOR, IMAGES, SENSORS, Sources
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.rows.row_reader import AnyRows, PickedRows, RowReader, Rows
from vlapipe.train.data.rows.row_times import RowTimes
from vlapipe.train.data.rows.shard_table import ShardTable
from vlapipe.train.data.sample_steps import Steps

__all__ = ["BatchRows", "Images", "MarkedEpisodes", "RowLookup"]

_ROUNDING = 1 + 1e-6  # half of a step is half of it also if a clock's float64 stamps were rounded
_STAMP_S = 1.001e-3  # by so much a stamp may be off that was written in whole milliseconds, less another such one
_Found = tuple[NDArray[np.int64], NDArray[np.bool_]]  # rows (N, T) within the episode, and which of them are padding


@dataclass(frozen=True)
class Images:
    """Windows of T images: ``row`` (N, T) within the shard; another image is read where ``is_pad`` (N, T) is true."""

    frames: BatchPlan
    row: NDArray[np.int64]
    is_pad: NDArray[np.bool_]


@dataclass(frozen=True)
class BatchRows:
    """The rows of N samples: ``windows`` by batch entry, ``images`` by camera, and ``actions``, the action chunks.

    ``no_action`` (N, H) marks rows of the chunks that have no action; ``None`` if the batch's episodes have none.
    ``present`` has the samples that have an entry's stream at all, for entries that some samples lack; the rows of such
    an entry are those of these samples. ``state_is_missing`` are the rows at which a stream of the state had no value.
    ``time`` (N,) is the frames' time in seconds since the first anchor row of their episode.
    """

    frames: BatchPlan
    windows: dict[str, AnyRows]
    images: dict[str, Images]
    actions: AnyRows
    no_action: NDArray[np.bool_] | None
    present: dict[str, NDArray[np.int64]]
    state_is_missing: AnyRows | None
    time: NDArray[np.float64]


@dataclass(frozen=True)
class _Frames:
    """The frames of a batch, or of the samples of it that have a stream."""

    plan: BatchPlan
    anchor_row: NDArray[np.int64]  # within the shard
    time: NDArray[np.float64]

    def of(self, samples: NDArray[np.int64]) -> _Frames:
        plan = BatchPlan(**{name: column[samples] for name, column in vars(self.plan).items()})
        return _Frames(plan, self.anchor_row[samples], self.time[samples])


class RowLookup:
    """Turns frames into rows; keeps a few columns of the episodes table in memory."""

    def __init__(self, sources: Sources, shards: ShardTable, reader: RowReader, steps: Mapping[str, Steps]) -> None:
        """Prepare to look up rows of the entries that ``steps`` has."""
        self._shards, self._reader, self._steps = shards, reader, steps
        self._entries = [entry for entry in steps if entry.startswith((IMAGES, SENSORS))]
        self._on_anchor = {entry for entry in self._entries if sources.is_on_anchor(entry)}
        action = steps["action"]
        self._action_stride = int(action.offsets[1] - action.offsets[0]) if len(action.offsets) > 1 else 1
        stored_strides = {dataset.stored_stride for dataset in sources.datasets}
        self._is_strided = not action.by_time
        has_order = self._is_strided and self._action_stride > 1
        self._has_stride_order = has_order and stored_strides == {self._action_stride}
        self._is_aligned = sources.is_aligned
        streams = [ANCHOR, *self._entries]
        self._start = {stream: sources.stream_column(stream, "start") for stream in streams}
        self._rows = {stream: sources.stream_column(stream, "rows") for stream in streams}
        self._some_lack = {entry for entry in self._entries if not self._rows[entry].all()}
        self._frame_start, self._num_frames = sources.frame_start, sources.num_frames
        frame_end = self._frame_start + self._num_frames  # a chunk may begin before the first frame
        self._without_action = MarkedEpisodes(ACTION_ROW, self._start[ANCHOR], frame_end)
        self._without_state = MarkedEpisodes(STATE_IS_MISSING, self._start[ANCHOR], self._rows[ANCHOR])
        self._times = {ANCHOR: RowTimes(TIME, reader)}
        if any(step.by_time or step.ahead_by_time for step in steps.values()):
            self._span_s = {stream: sources.span_s(stream) for stream in streams}
            self._begin_s = {stream: sources.begin_s(stream) for stream in streams}
            self._times |= {entry: RowTimes(f"{TIME}/{entry}", reader) for entry in self._entries}

    def locate(self, plan: BatchPlan) -> BatchRows:
        """Look up every sample's rows. The caller holds a lease of the shards.

        Raises:
            DamageError: a row lies outside its shard.
        """
        anchor_row = plan.row + self._start[ANCHOR][plan.episode]
        frames = _Frames(plan, anchor_row, self._times[ANCHOR].at(plan.shard, anchor_row))
        windows, images, present = {STATE: self._on_anchor_rows(frames, STATE)}, dict[str, Images](), {}
        for entry in self._entries:
            of_entry = frames
            if entry in self._some_lack:
                present[entry] = np.flatnonzero(self._rows[entry][plan.episode])
                of_entry = frames.of(present[entry])
            if entry in self._on_anchor:
                windows[entry] = self._on_anchor_rows(of_entry, entry)
            elif entry.startswith(IMAGES):
                row, is_pad = self._own_rows(of_entry, entry)
                row = self._start[entry][of_entry.plan.episode][:, None] + row
                images[entry.removeprefix(IMAGES)] = Images(of_entry.plan, row, is_pad)
            else:
                windows[entry] = self._on_own_clock(of_entry, entry)
        missing = None
        if self._is_aligned and self._without_state.in_any(plan, self._shards.rows, lambda marks: marks > 0):
            missing = replace(windows[STATE], name=STATE_IS_MISSING)
        actions, no_action = self._actions(frames)
        return BatchRows(plan, windows, images, actions, no_action, present, missing, frames.time)

    def _on_anchor_rows(self, frames: _Frames, entry: str) -> AnyRows:
        """The window of an entry whose rows are anchor rows."""
        steps, plan = self._steps[entry], frames.plan
        start = self._start[ANCHOR][plan.episode]
        if steps.stride is not None:
            return _window(entry, steps, steps.stride, plan, start, frames.anchor_row)
        rows, is_pad = self._anchor_rows(frames, steps.offsets, by_time=steps.by_time)
        if steps.ahead:
            rows, is_pad = _joined((rows, is_pad), self._anchor_rows(frames, steps.ahead, by_time=steps.ahead_by_time))
        return PickedRows(entry, plan.shard, start[:, None] + rows, is_pad)

    def _on_own_clock(self, frames: _Frames, entry: str) -> AnyRows:
        """The window of an entry whose rows lie on a clock of their own."""
        steps, plan = self._steps[entry], frames.plan
        start = self._start[entry][plan.episode]
        if steps.stride is not None:
            newest = self._newest(plan, entry, frames.anchor_row)
            return _window(entry, steps, steps.stride, plan, start, start + newest)
        rows, is_pad = self._own_rows(frames, entry)
        return PickedRows(entry, plan.shard, start[:, None] + rows, is_pad)

    def _own_rows(self, frames: _Frames, entry: str) -> _Found:
        """The rows (N, T) of a stream beside the anchor, within the episode; rows before its first one are padding."""
        steps, plan = self._steps[entry], frames.plan
        if steps.by_time:
            found = self._rows_by_time(frames, entry, np.array(steps.offsets))
        else:
            newest = self._newest(plan, entry, frames.anchor_row)
            row = newest[:, None] + np.array(steps.offsets, dtype=np.int64)
            found = np.maximum(row, 0), row < 0
        if steps.ahead:
            rows, is_pad = self._anchor_rows(frames, steps.ahead, by_time=steps.ahead_by_time)
            start = self._start[ANCHOR][plan.episode][:, None]
            shard = np.repeat(plan.shard, rows.shape[1])
            newest = self._newest(replace(plan, shard=shard), entry, (start + rows).reshape(-1)).reshape(rows.shape)
            found = _joined(found, (np.maximum(newest, 0), is_pad | (newest < 0)))
        return found

    def _rows_by_time(self, frames: _Frames, entry: str, offsets: NDArray[np.float64]) -> _Found:
        """The stream's last row at or before each time. A time after the episode's last anchor row is padding.

        Stamps are rounded, so a row is not after the time if it is so by a tenth of its clock's step, and a
        millisecond, at most. Else two clocks of one rate would skip rows and repeat others, as the digits fall. No row
        of the frame's past is newer than the frame.
        """
        plan = frames.plan
        wanted = frames.time[:, None] + offsets
        num_rows, span_s = self._rows[entry][plan.episode], self._span_s[entry][plan.episode]
        guess = (wanted - self._begin_s[entry][plan.episode][:, None]) * (num_rows / np.maximum(span_s, 1e-9))[:, None]
        start = self._start[entry][plan.episode]
        slack_s = np.where(num_rows > 1, np.minimum(span_s / np.maximum(num_rows - 1, 1) / 10, _STAMP_S), _STAMP_S)
        row = self._times[entry].last_at_or_before(wanted + slack_s[:, None], plan.shard, start, num_rows, guess)
        newest = self._newest(plan, entry, frames.anchor_row)[:, None]
        row[:, offsets < 0] = np.minimum(row[:, offsets < 0], newest)
        row[:, offsets == 0] = newest
        last_s = self._span_s[ANCHOR][plan.episode] * _ROUNDING + self._half_step(plan)
        return np.maximum(row, 0), (row < 0) | (wanted > last_s[:, None])

    def _anchor_rows(self, frames: _Frames, offsets: Sequence[float], *, by_time: bool) -> _Found:
        """Anchor rows (N, T) within the episode: by number, or the nearest in time. Padding is clipped to a row."""
        plan = frames.plan
        num_rows = self._rows[ANCHOR][plan.episode]
        if not by_time:
            row = plan.row[:, None] + np.array(offsets, dtype=np.int64)
            return np.clip(row, 0, num_rows[:, None] - 1), (row < 0) | (row >= num_rows[:, None])
        apart = np.array(offsets)
        half_step = self._half_step(plan)
        guess = plan.row[:, None] + apart / (2 * half_step[:, None])
        start = self._start[ANCHOR][plan.episode]
        wanted = frames.time[:, None] + apart
        rows, away_s = self._times[ANCHOR].nearest(wanted, plan.shard, start, num_rows, guess)
        rows[:, apart == 0], away_s[:, apart == 0] = plan.row[:, None], 0.0  # also if rows share a stamp
        steps = np.diff(np.unique([0.0, *offsets]))  # from the frame on
        limit = np.maximum(half_step, steps.min() / 2 if len(steps) else 0.0)
        return rows, away_s > limit[:, None] * _ROUNDING

    def _half_step(self, plan: BatchPlan) -> NDArray[np.float64]:
        """Half of the mean step of each episode's anchor, in seconds."""
        half: NDArray[np.float64] = np.maximum(
            self._span_s[ANCHOR][plan.episode] / np.maximum(self._rows[ANCHOR][plan.episode] - 1, 1) / 2, 1e-9
        )
        return half

    def _newest(self, plan: BatchPlan, entry: str, anchor_row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The last row of the entry's stream at or before each anchor row, counted within the episode."""
        newest = np.empty((len(anchor_row), 1), dtype=np.int32)
        self._reader.read(Rows.from_first(f"align/{entry}", 1, plan.shard, anchor_row), newest)
        return newest[:, 0].astype(np.int64)

    def _actions(self, frames: _Frames) -> tuple[AnyRows, NDArray[np.bool_] | None]:
        """Each frame's action chunk up to the episode's last frame, and a mask of the rows that have no action."""
        plan, anchor_row = frames.plan, frames.anchor_row
        frame_end = self._frame_start[plan.episode] + self._num_frames[plan.episode]
        has_holes = self._without_action.in_any(plan, self._shards.rows, lambda rows: rows < 0)
        num_actions = self._steps["action"].num_rows
        if not self._is_strided:
            rows, is_pad = self._anchor_rows(frames, self._steps["action"].offsets, by_time=True)
            is_pad |= rows >= frame_end[:, None]
            found: AnyRows = PickedRows("action", plan.shard, self._start[ANCHOR][plan.episode][:, None] + rows, is_pad)
            return found, self._no_action(found) if has_holes else None
        steps = np.minimum((frame_end - 1 - plan.row) // self._action_stride, num_actions - 1)
        end = anchor_row + steps * self._action_stride
        found = Rows("action", num_actions, plan.shard, anchor_row, anchor_row, end, self._action_stride)
        no_action = self._no_action(found) if has_holes else None
        if not self._has_stride_order:
            return found, no_action
        place = position_in_stride_order(plan.row, self._rows[ANCHOR][plan.episode], self._action_stride)
        first = anchor_row - plan.row + place
        return Rows(ACTION_STRIDE_ORDER, num_actions, plan.shard, first, first, first + steps), no_action

    def _no_action(self, actions: AnyRows) -> NDArray[np.bool_]:
        ahead = np.empty((len(actions.shard), actions.num_rows), dtype=np.int32)
        self._reader.read(replace(actions, name=ACTION_ROW), ahead)
        return ahead < 0


def _window(
    entry: str,
    steps: Steps,
    stride: int,
    plan: BatchPlan,
    start: NDArray[np.int64],
    last: NDArray[np.int64],
) -> Rows:
    """The window of every ``stride``-th row up to row ``last``; rows before the episode's first row are padding."""
    first = last - (steps.num_rows - 1) * stride
    return Rows(entry, steps.num_rows, plan.shard, first, start, np.maximum(start, last), stride)


def _joined(one: _Found, other: _Found) -> _Found:
    return np.concatenate([one[0], other[0]], axis=1), np.concatenate([one[1], other[1]], axis=1)


_UNKNOWN, _NONE, _SOME = 0, 1, 2


class MarkedEpisodes:
    """Finds the episodes with a marked row: a frame without an action, or a row without a value of the state.

    If a batch has no such episode, the lookup need not read the marks, which saves as many cache misses as the batch
    has samples. An episode is searched when one of its frames comes for the first time.
    """

    def __init__(self, name: str, first: NDArray[np.int64], count: NDArray[np.int64]) -> None:
        """Prepare to search.

        Args:
            name: the array with the marks.
            first: the first row of each episode that is searched, within the shard.
            count: number of rows of each episode that are searched.
        """
        self._name, self._first, self._count = name, first, count
        self._found = np.full(len(first), _UNKNOWN, dtype=np.uint8)

    def in_any(
        self,
        plan: BatchPlan,
        rows_of: Callable[[str, int, int, int], NDArray[Any]],
        is_marked: Callable[[NDArray[Any]], NDArray[np.bool_]],
    ) -> bool:
        """Whether any of the plan's episodes has a marked row.

        ``rows_of(name, shard, start, stop)`` gives the rows ``start <= i < stop`` of an array of a shard.
        """
        found = self._found[plan.episode]
        unknown = np.flatnonzero(found == _UNKNOWN)
        if len(unknown):
            shards = dict(zip(plan.episode[unknown].tolist(), plan.shard[unknown].tolist(), strict=True))
            for episode, shard in shards.items():
                begin = int(self._first[episode])
                rows = rows_of(self._name, shard, begin, begin + int(self._count[episode]))
                self._found[episode] = _SOME if is_marked(rows).any() else _NONE
            found = self._found[plan.episode]
        return bool((found == _SOME).any())
