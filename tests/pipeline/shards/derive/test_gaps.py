"""Frames whose windows cross a gap, compared to a plain check of every stamp of every window."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.gaps import find_gaps, frames_between, gap_rows, spans_across_gaps, window_rows
from vlapipe.pipeline.shards.derive.rows_in_time import last_row_at_or_before
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, spans_of
from vlapipe.schemas.schema import SampleDefaults

MAX_GAP_MS = 40
steps_ms = st.lists(st.sampled_from([5, 10, 10, 10, 39, 40, 41, 80, 300]), max_size=40)
small = st.integers(1, 6)


def clock(start_ms: int, steps: list[int], unit: str) -> NDArray[Any]:
    """Seconds are small whole multiples of a power of two, so that a plain comparison is exact."""
    stamps = np.cumsum([start_ms, *steps])
    return stamps * 1_000_000 if unit == "ns" else stamps / 1024


def limit_s(unit: str) -> float:
    return MAX_GAP_MS / (1000 if unit == "ns" else 1024)


def crosses(stamps: list[Any], now: Any, limit: float) -> bool:
    """Whether two stamps that follow each other, or the last and the frame's own, lie too far apart."""
    moments = [*stamps, now]
    return any(later - earlier > limit for earlier, later in itertools.pairwise(moments))


def beside(num_rows: int, *clocks_and_gaps: Any) -> NDArray[np.int64]:
    """Spans of one episode, by the rows of the table that ingest writes."""
    rows = gap_rows(*clocks_and_gaps)
    return spans_of(gaps_table((0, {"stream": "camera", **row}) for row in rows), {"camera": num_rows})[1]


def left(first: int, count: int, spans: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The intervals of one episode's frames that no span covers: first row and length."""
    of_one = np.zeros(len(spans), dtype=np.int64)
    episode, begins, lengths = frames_between(np.array([first]), np.array([count]), of_one, spans)
    assert not episode.any()
    return list(zip(begins.tolist(), lengths.tolist(), strict=True))


@given(
    anchor=steps_ms, camera=steps_ms, start=st.integers(-200, 0), unit=st.sampled_from(["ns", "s"]),
    state_rows=small, image_rows=small, action_rows=small, stride=st.integers(1, 3),
)  # fmt: skip
def test_frames_left_are_those_whose_stamps_lie_close(
    anchor: list[int], camera: list[int], start: int, unit: str,
    state_rows: int, image_rows: int, action_rows: int, stride: int,
) -> None:  # fmt: skip
    ours, theirs, limit = clock(0, anchor, unit), clock(start, camera, unit), limit_s(unit)
    align = last_row_at_or_before(ours, theirs)
    others = beside(image_rows, ours, theirs, align, find_gaps(theirs, limit), limit)
    spans = np.concatenate([spans_across_gaps(find_gaps(ours, limit), state_rows, (action_rows - 1) * stride), others])
    found = [row for begin, length in left(0, len(ours), spans) for row in range(begin, begin + length)]

    limit_in_unit = MAX_GAP_MS * 1_000_000 if unit == "ns" else limit
    expected = []
    for row in range(len(ours)):
        state = list(ours[max(0, row - state_rows + 1) : row + 1])
        chunk = list(ours[row : row + (action_rows - 1) * stride + 1])
        images = list(theirs[max(0, align[row] - image_rows + 1) : align[row] + 1])
        if not (
            crosses(state, ours[row], limit_in_unit)
            or crosses(chunk, chunk[-1], limit_in_unit)
            or crosses(images, ours[row], limit_in_unit)
        ):
            expected.append(row)
    assert found == expected


def test_anchor_in_nanoseconds_and_camera_in_seconds() -> None:
    ours = np.arange(10) * 100_000_000
    theirs = np.array([0.0, 0.1, 0.2, 0.7, 0.8])
    spans = beside(2, ours, theirs, last_row_at_or_before(ours, theirs), np.array([3]), 0.25)
    # The last image is 0.3 s old from row 5 on; two images behind the gap are there from row 8 on.
    assert left(0, 10, spans) == [(0, 5), (8, 2)]


def test_nothing_is_left_out_without_gaps() -> None:
    assert left(3, 7, spans_across_gaps(np.array([], dtype=np.int32), 100, 49)) == [(3, 7)]


@given(
    episodes=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), min_size=1, max_size=4),
    spans=st.lists(st.tuples(st.integers(0, 3), st.integers(-10, 60), st.integers(-10, 60)), max_size=9),
)
def test_frames_between_spans_equal_a_plain_search(
    episodes: list[tuple[int, int]], spans: list[tuple[int, int, int]]
) -> None:
    spans = [(episode % len(episodes), start, stop) for episode, start, stop in spans]
    of_span, *ends = np.array(spans, dtype=np.int64).reshape(-1, 3).T
    first, count = np.array(episodes).T
    found = [
        (episode, row)
        for episode, begin, length in zip(
            *(column.tolist() for column in frames_between(first, count, of_span, np.stack(ends, axis=1))), strict=True
        )
        for row in range(begin, begin + length)
    ]
    assert found == [
        (episode, row)
        for episode, (begin, length) in enumerate(episodes)
        for row in range(begin, begin + length)
        if not any(of == episode and start <= row < stop for of, start, stop in spans)
    ]


@pytest.mark.parametrize(
    ("sensors", "expected"),
    [
        ((), {"robot": 4, "front": 3}),
        ((("f", "sensor/force"), ("a", "sensor/aline")), {"robot": 4, "sensor": 9, "front": 3}),
        ((("f", "robot/force"),), {"robot": 9, "front": 3}),
    ],
)
def test_window_rows_of_each_stream(sensors: tuple[tuple[str, str], ...], expected: dict[str, int]) -> None:
    sample = SampleDefaults(state=(), sensors=sensors, state_rows=4, sensor_rows=9, image_rows=3)
    assert window_rows(sample, "robot", ["front"], lambda _: 10.0) == expected
