"""Finds where a robot stands still (neither state nor action moves for a while), and the frames that are left then.

Standing still is judged against the data's own resolution. A column stands still in a window of time if it varies there
by less than a share of the range over which columns of its unit move in the episode, or by no more than its own noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.derived_fields import derived_specs
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec, Schema

__all__ = ["Spans", "find_idle", "report_idle", "without_idle"]

Spans = list[tuple[int, int]]  # rows ``start <= row < stop``

_SHARE = 0.005  # of the range of motion
# Times the mean second difference in quiet windows. White noise whose spikes were smoothed away spreads over up to 8
# times that in a window. Motion spreads over far more, since its second differences are small if there are rows enough.
_OF_NOISE, _ENOUGH_ROWS = 8.0, 16
# A column that changes more often than this flickers between the steps of its encoder, or moves.
_OFTEN, _MANY, _OF_STEP = 0.1, 8, 1.5
_CREEP = 4  # limit on the variation over a whole standstill, in limits of a window: more is a slow motion
_NEARLY = 0.999  # stamps are rounded
_LEAST_ROWS = 4  # in a window; fewer say nothing
_Floats = NDArray[np.float64]


def find_idle(streams: dict[str, Rows], schema: Schema) -> Spans:
    """Returns the spans of anchor rows of at least ``idle_s`` in which nothing of state and action moves."""
    clock = seconds(streams[schema.anchor].timestamp)
    idle = np.ones(max(0, len(clock) - 1), dtype=np.bool_)  # of each step to the next row
    for name, fields in _moving_fields(schema).items():
        rows = streams[name]
        if not isinstance(rows, StreamRows) or not rows.num_rows:
            continue  # an optional stream that the episode lacks
        times = clock if name == schema.anchor else seconds(rows.timestamp)
        still = _still_steps(times, rows, fields, schema.episodes.idle_s)
        if name == schema.anchor:
            idle &= still
        else:  # every step of the other stream that lies in the anchor's step, or reaches into it
            first = np.searchsorted(times, clock[:-1], side="right") - 1
            stop = np.searchsorted(times, clock[1:], side="left")
            moves = np.concatenate([[0], np.cumsum(~still)])
            last = len(still)
            idle &= moves[np.clip(stop, 0, last)] == moves[np.clip(first, 0, last)]
    return [(a, b + 1) for a, b in _runs(idle) if clock[b] - clock[a] >= _NEARLY * schema.episodes.idle_s]


def report_idle(idle: Spans, anchor: StreamRows, schema: Schema, findings: Findings) -> None:
    """Adds one finding that has the seconds of all spans: at the beginning, at the end, and in pauses."""
    if not idle:
        return
    times, last = seconds(anchor.timestamp), anchor.num_rows
    lasting = [(a, b, float(times[b - 1] - times[a])) for a, b in idle]
    pauses = [length for a, b, length in lasting if a > 0 and b < last]
    said = [f"{length:.3g} s at the beginning" for a, b, length in lasting if a == 0 and b < last]
    said += [f"{length:.3g} s at the end" for a, b, length in lasting if b == last and a > 0]
    said += [f"{length:.3g} s, all the time" for a, b, length in lasting if (a, b) == (0, last)]
    said += [f"{sum(pauses):.3g} s in {len(pauses)} pause{'s' if len(pauses) > 1 else ''}"] if pauses else []
    code = "episode.idle" if schema.episodes.idle == "keep" else "episode.idle_trimmed"
    found = f"nothing moves for {', '.join(said)}"
    findings.add(code, anchor.source.path, line=anchor.line_of(idle[0][0]), found=found)


def without_idle(frames: tuple[int, int], idle: Spans, action_row: NDArray[np.int32]) -> tuple[tuple[int, int], Spans]:
    """Returns the frames that are left, from the first to past the last one, and the spans between them to leave out.

    A frame is left out if its action ends in the same standstill. A frame whose action begins a motion stays.

    Args:
        frames: the frames, ``start <= row < stop``.
        idle: the spans in which nothing moves.
        action_row: for each anchor row the row that its action looks ahead to, or -1.
    """
    out = np.zeros(len(action_row), dtype=np.bool_)
    for a, b in idle:
        out[a:b] = action_row[a:b] < b  # -1 too: no action
    left = np.flatnonzero(~out[frames[0] : frames[1]]) + frames[0]
    if not len(left):
        return (frames[0], frames[0]), []
    start, stop = int(left[0]), int(left[-1]) + 1
    return (start, stop), [(start + a, start + b) for a, b in _runs(out[start:stop])]


def _moving_fields(schema: Schema) -> dict[str, list[FieldSpec]]:
    """Returns the stored fields that state and action are made of, by stream."""
    sources = {path: of for path, (of, _) in derived_specs(schema).items()}
    of_append = [constant.field for constant in schema.action.append if constant.field]
    paths = [*schema.sample.state, *schema.action.of, *of_append]
    fields: dict[str, list[FieldSpec]] = {}
    for path in dict.fromkeys(sources.get(path, path) for path in paths):
        fields.setdefault(path.partition("/")[0], []).append(schema.field(path))
    return fields


def _smoothed(rows: StreamRows, fields: list[FieldSpec]) -> tuple[_Floats, list[tuple[str, str]]]:
    """Returns all columns of the fields, ``(columns, rows)``, without isolated spikes, and what each one measures.

    Columns of one field and one unit are alike: the range of the one that moves most tells how much is a motion.
    """
    columns, kinds = [], []
    for field in fields:
        values = rows.fields[field.name].reshape(rows.num_rows, -1).T
        period = [field.period[i % len(field.period)] if field.period else 0.0 for i in range(len(values))]
        columns += [_unwrapped(column, p) if p else column for column, p in zip(values, period, strict=True)]
        kinds += [(field.name, field.unit[i % len(field.unit)] if field.unit else "") for i in range(len(values))]
    smooth = np.empty((len(columns), rows.num_rows))
    for column, to in zip(columns, smooth, strict=True):
        to[:] = column
    before, here, after = smooth[:, :-2], smooth[:, 1:-1], smooth[:, 2:]
    lower, upper = np.minimum(before, here), np.maximum(before, here)
    np.maximum(lower, np.minimum(upper, after, out=upper), out=here)
    return smooth, kinds


def _unwrapped(column: NDArray[Any], period: float) -> NDArray[Any]:
    """Does what ``np.unwrap`` does, which takes five times as long to find that nothing has to be done."""
    if len(column) > 1 and np.abs(np.diff(column)).max() < period / 2:
        return column
    return np.asarray(np.unwrap(column, period=period))


@np.errstate(invalid="ignore")  # the schema may allow NaN: such a column then moves
def _still_steps(times: _Floats, rows: StreamRows, fields: list[FieldSpec], idle_s: float) -> NDArray[np.bool_]:
    """Returns for each row but the last whether it and the next row lie in one window of ``idle_s`` without motion."""
    still_steps = np.zeros(max(0, len(times) - 1), dtype=np.bool_)
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) else 0.0
    if step <= 0:
        return still_steps
    count = max(_LEAST_ROWS, round(idle_s / step) + 1)
    if count > len(times):
        return still_steps
    columns, kinds = _smoothed(rows, fields)
    # Blocks of half a window: each window holds a whole one. Without a still block, as is usual, nothing stands still.
    block = count // 2
    blocks = _blocks(columns, block)
    high, low = blocks.max(axis=2), blocks.min(axis=2)
    limits = _SHARE * _reach(high, low, kinds)
    if not _may_stand_still(columns, high - low, limits, count):
        return still_steps
    limits = _limits(columns, limits, count)[:, None]
    # A window across a gap says nothing about what happened there.
    still = _rolling(np.maximum, steps, count - 1) < max(idle_s / 2, 3 * step)
    spread = _rolling(np.maximum, columns, count) - _rolling(np.minimum, columns, count)
    still &= (spread <= limits).all(axis=0)
    for first, stop in _runs(still):
        last = stop + count - 2
        span = columns[:, first : last + 1]
        if (span.max(axis=1) - span.min(axis=1) <= _CREEP * limits[:, 0]).all():
            still_steps[first:last] = True
    return still_steps


def _limits(columns: _Floats, limits: _Floats, count: int) -> _Floats:
    """Returns the limits of the columns' variation in a window of ``count`` rows, raised above noise and flicker."""
    noise = np.abs(np.diff(_blocks(columns, count // 2 * 2), n=2, axis=2)).mean(axis=2)
    noise = np.sort(noise, axis=1)[:, noise.shape[1] // 4]
    limits = np.maximum(limits, (_OF_NOISE if count >= _ENOUGH_ROWS else 0.0) * noise)
    return np.maximum(limits, _flicker(columns))


def _may_stand_still(columns: _Floats, spread: _Floats, limits: _Floats, count: int) -> bool:
    """Returns whether no column moves in some block. Column after column is looked at, until a motion is in each block.

    Noise and flicker are costly, and most often the first column that moves is enough. Args: ``spread`` of each column
    and block, and the ``limits`` that are raised by noise and flicker.
    """
    left = np.ones(spread.shape[1], dtype=np.bool_)
    for i in range(len(columns)):
        if (spread[i] > limits[i])[left].any():
            left &= spread[i] <= _limits(columns[i : i + 1], limits[i : i + 1], count)
            if not left.any():
                return False
    return True


def _reach(high: _Floats, low: _Floats, kinds: list[tuple[str, str]]) -> _Floats:
    """Returns for each column the range in which the columns of its kind move, from the extremes of blocks.

    The most extreme block of each column does not count: a spike would make all other motion look like none.
    """
    last = min(1, high.shape[1] - 1)
    reach = np.sort(high, axis=1)[:, -1 - last] - np.sort(low, axis=1)[:, last]
    most: dict[tuple[str, str], float] = {}
    for kind, value in zip(kinds, reach.tolist(), strict=True):
        most[kind] = max(most.get(kind, 0.0), value)
    return np.array([most[kind] for kind in kinds])


def _flicker(columns: _Floats) -> _Floats:
    """Returns a limit above one step of each column's encoder, or 0 if the column seldom changes, as a gripper does."""
    changes = np.abs(np.diff(columns, axis=1))
    is_change = changes > 0
    least = np.where(is_change, changes, np.inf).min(axis=1)
    often = is_change.sum(axis=1) > max(_MANY, _OFTEN * changes.shape[1])
    return np.where(often, _OF_STEP * least, 0.0)


def _blocks(columns: _Floats, size: int) -> _Floats:
    """Returns ``(columns, blocks, size)``; rows after the last whole block are left out."""
    return columns[:, : columns.shape[1] // size * size].reshape(len(columns), -1, size)


def _rolling(pick: Callable[..., _Floats], values: _Floats, count: int) -> _Floats:
    """Returns the maximum or minimum of each ``count`` neighbours in the last axis, in log(count) steps."""
    width = 1
    while width < count:
        step = min(width, count - width)
        values = pick(values[..., :-step], values[..., step:])
        width += step
    return values


def _runs(mask: NDArray[np.bool_]) -> Spans:
    """Returns each span of neighbouring rows that are marked."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
