"""Frames whose windows cross a gap, against a plain look at every stamp of every window."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlapipe.pipeline.align import last_row_at_or_before
from vlapipe.pipeline.checks.clocks import find_gaps
from vlapipe.pipeline.shards.windows import GappyStream, frames_between, spans_across_gaps, window_rows
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
    sample = SampleDefaults(state=(), state_rows=state_rows, action_rows=action_rows, action_stride=stride)
    other = GappyStream(
        window_rows=image_rows, max_gap_s=limit, gaps=find_gaps(theirs, limit), align=align, timestamp=theirs
    )
    spans = spans_across_gaps(sample, ours, find_gaps(ours, limit), state_rows, [other])
    begins, lengths = frames_between(0, len(ours), spans)
    found = [row for begin, length in zip(begins, lengths, strict=True) for row in range(begin, begin + length)]

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
    other = GappyStream(
        window_rows=2, max_gap_s=0.25, gaps=np.array([3]), align=last_row_at_or_before(ours, theirs), timestamp=theirs
    )
    spans = spans_across_gaps(SampleDefaults(state=()), ours, np.array([]), 1, [other])
    begins, lengths = frames_between(0, 10, spans)
    # The last image is 0.3 s old from row 5 on; two images behind the gap are there from row 8 on.
    assert list(zip(begins.tolist(), lengths.tolist(), strict=True)) == [(0, 5), (8, 2)]


def test_nothing_is_left_out_without_gaps() -> None:
    sample = SampleDefaults(state=(), state_rows=100, action_rows=50)
    spans = spans_across_gaps(sample, np.empty(0), np.array([], dtype=np.int32), 100, [])
    assert [array.tolist() for array in frames_between(3, 7, spans)] == [[3], [7]]


@given(
    first=st.integers(0, 20),
    count=st.integers(0, 30),
    spans=st.lists(st.tuples(st.integers(-10, 60), st.integers(-10, 60)), max_size=6),
)
def test_frames_between_spans_equal_a_plain_search(first: int, count: int, spans: list[tuple[int, int]]) -> None:
    begins, lengths = frames_between(first, count, np.array(spans, dtype=np.int64).reshape(-1, 2))
    found = [row for begin, length in zip(begins, lengths, strict=True) for row in range(begin, begin + length)]
    assert found == [r for r in range(first, first + count) if not any(a <= r < b for a, b in spans)]


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
    assert window_rows(sample, "robot", ["front"]) == expected
