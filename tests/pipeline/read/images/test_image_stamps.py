"""The time of each image is in its name, follows from the number in its name, or is in a separate file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.images.image_stamps import stamp_images
from vlapipe.pipeline.stream_rows import ClockLocation
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import TimeSpec


def stamp(
    names: list[str], clock: ClockFile | None = None, **time: Any
) -> tuple[list[str], list[Any] | None, list[Finding]]:
    findings = Findings()
    files, stamps = stamp_images([f"cam/{name}" for name in names], "cam", TimeSpec(**time), clock, findings)
    names = [file.partition("/")[2] for file in files]
    return names, None if stamps is None else stamps.tolist(), list(findings)


def clock_of(stamps: list[Any], names: tuple[str, ...] | None = None) -> ClockFile:
    place = ClockLocation(file="times.csv", line_of=lambda row: row + 2)
    return ClockFile(timestamp=np.array(stamps), names=names, place=place)


NAMES: dict[str, tuple[list[str], dict[str, Any], list[str], list[Any]]] = {
    "seconds": (["10.5.jpg", "9.25.jpg"], {}, ["9.25.jpg", "10.5.jpg"], [9.25, 10.5]),
    "nanoseconds": (
        ["1740416404000000002.jpg", "1740416404000000001.jpg"],
        {"unit": "ns", "integer": True},
        ["1740416404000000001.jpg", "1740416404000000002.jpg"],
        [1740416404000000001, 1740416404000000002],
    ),
    "a number over a rate": (
        ["frame_10.jpg", "frame_9.jpg"],
        {"index_rate_hz": 10},
        ["frame_9.jpg", "frame_10.jpg"],
        [900_000_000, 1_000_000_000],
    ),
    "a number that a pattern finds": (
        ["cam2_10_left.jpg", "cam2_9_left.jpg"],
        {"index_rate_hz": 10, "pattern": r"_(\d+)_"},
        ["cam2_9_left.jpg", "cam2_10_left.jpg"],
        [900_000_000, 1_000_000_000],
    ),
    "a time that a pattern finds": (["a_1.5.jpg"], {"pattern": r"_(\d+\.\d+)\.jpg$"}, ["a_1.5.jpg"], [1.5]),
    "milliseconds in whole numbers": (
        ["img-1500.jpg"],
        {"pattern": r"-(\d+)", "unit": "ms", "integer": True},
        ["img-1500.jpg"],
        [1_500_000_000],
    ),
    "a moment": (
        ["center_2017_05_02_11_16_21_421.jpg"],
        {"pattern": r"center_(.*)\.jpg", "format": "%Y_%m_%d_%H_%M_%S_%f"},
        ["center_2017_05_02_11_16_21_421.jpg"],
        [1_493_723_781_421_000_000],
    ),
    "a moment without a pattern": (
        ["20260101T000010.jpg"],
        {"format": "%Y%m%dT%H%M%S"},
        ["20260101T000010.jpg"],
        [1_767_225_610_000_000_000],
    ),
    "an offset": (["1.5.jpg"], {"offset_s": -1}, ["1.5.jpg"], [0.5]),
}


@pytest.mark.parametrize("case", NAMES)
def test_time_is_found_in_the_name(case: str) -> None:
    names, time, ordered, stamps = NAMES[case]
    assert stamp(names, **time) == (ordered, stamps, [])


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("noon.jpg", {}),
        ("1.5.2.jpg", {}),
        ("-1.jpg", {}),
        ("1.5.jpg", {"integer": True}),
        ("frame.jpg", {"index_rate_hz": 10}),
        ("cam1_frame2.jpg", {"index_rate_hz": 10}),
        ("cam_x.jpg", {"index_rate_hz": 10, "pattern": r"_(\d+)"}),
        ("99999999999999999999.jpg", {"index_rate_hz": 10}),
        ("2026.jpg", {"format": "%Y_%m"}),
    ],
)
def test_name_without_a_time_is_refused(name: str, time: dict[str, Any]) -> None:
    _, stamps, findings = stamp([name], **time)
    assert stamps is None
    assert [f.code for f in findings] == ["image.bad_name"]


def test_every_bad_name_is_named_and_the_good_images_are_still_looked_at() -> None:
    files, stamps, findings = stamp(["a.jpg", "1.jpg", "b.jpg"])
    assert (files, stamps) == (["1.jpg"], None)
    assert [f.file for f in findings] == ["cam/a.jpg", "cam/b.jpg"]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30, unique=True))
def test_images_are_in_the_order_of_their_numbers(numbers: list[int]) -> None:
    files, stamps, _ = stamp([f"f{number}.jpg" for number in numbers], clock_of(list(range(len(numbers)))))
    assert files == [f"f{number}.jpg" for number in sorted(numbers)]
    assert stamps == list(range(len(numbers)))


def test_other_number_of_stamps_than_images_tells_both() -> None:
    files, stamps, [finding] = stamp(["1.jpg", "2.jpg"], clock_of([1.0, 2.0, 3.0]))
    assert (len(files), stamps) == (2, None)
    assert (finding.code, finding.file, finding.found) == ("clock.count", "times.csv", "3")
    assert finding.expected.startswith("2 stamps")


def test_stamps_that_run_backwards_are_not_sorted_away() -> None:
    assert stamp(["1.jpg", "2.jpg"], clock_of([2.0, 1.0])) == (["1.jpg", "2.jpg"], [2.0, 1.0], [])


@pytest.mark.parametrize(
    "names", [("b.jpg", "a.jpg"), ("rgb/b.jpg", "rgb/a.jpg"), ("b", "a"), ("x\\b.jpg", "x\\a.jpg")]
)
def test_images_belong_to_the_rows_that_name_them(names: tuple[str, str]) -> None:
    assert stamp(["a.jpg", "b.jpg"], clock_of([1.0, 2.0], names)) == (["b.jpg", "a.jpg"], [1.0, 2.0], [])


def test_image_that_no_row_names_is_refused() -> None:
    _, stamps, [finding] = stamp(["a.jpg", "b.jpg", "c.jpg"], clock_of([1.0], ("a.jpg",)))
    assert stamps is None
    assert (finding.code, finding.found, finding.count) == ("clock.count", "none for b.jpg", 2)


def test_row_whose_image_is_lost_is_told() -> None:
    _, stamps, [finding] = stamp(["a.jpg"], clock_of([1.0, 2.0], ("a.jpg", "b.jpg")))
    assert stamps == [1.0]
    assert (finding.code, finding.file, finding.found) == ("image.count", "cam", "1")


def test_image_that_two_rows_name_is_refused_with_the_line() -> None:
    _, stamps, [finding] = stamp(["a.jpg"], clock_of([1.0, 2.0], ("a.jpg", "a.jpg")))
    assert stamps is None
    assert (finding.code, finding.line) == ("clock.count", 3)
