"""Finds the time of each image: in its name, by the number in its name, or in another file. No image is opened."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_tree import natural_order
from vlapipe.pipeline.read.clock_file import ClockFile, clock_of_stamps, refuse_far
from vlapipe.pipeline.read.clocks.stamps import FarStampsError, parse_stamp, wanted_stamp
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import TimeSpec

__all__ = ["stamp_images"]

_DECIMAL = re.compile(r"\d+(\.\d+)?\Z")
_DIGITS = re.compile(r"(\d+)")
_MOST_DIGITS = 18


def stamp_images(
    files: list[str], folder: str, time: TimeSpec, clock: ClockFile | None, findings: Findings
) -> tuple[list[str], NDArray[Any] | None]:
    """Returns the files in the order of their times, and the times. After an error the times are ``None``.

    Args:
        files: the images' paths.
        folder: the name of all images in findings.
        time: how names and stamps are written.
        clock: the images' stamps, if they have a file of their own.
        findings: collects the faults; every name that is no time is reported.
    """
    ordered = sorted(files, key=lambda file: (natural_order(_name(file)), file))
    if time.rows_of is not None:
        return ordered, _rows(ordered)
    if clock is None:
        return _by_name(ordered, folder, time, findings)
    if clock.names is None:
        # Files keep the order of their numbers even if the clock runs backwards; the clock's check reports that.
        return ordered, clock.timestamp if clock.fits(len(ordered), folder, findings) else None
    return _by_table(ordered, folder, clock, clock.names, findings)


def _rows(files: list[str]) -> NDArray[np.int64]:
    """Returns the row of each image: how far its number is from the first image's, so that a lost image moves no other.

    If no number of the names counts up image by image, the order of the names tells.
    """
    in_order = np.arange(len(files))
    parts = [_DIGITS.split(_name(file)) for file in files]
    if len({len(each) for each in parts}) != 1:
        return in_order
    varying = [texts for texts in zip(*parts, strict=True) if len(set(texts)) > 1]
    if len(varying) != 1 or not all(text.isdecimal() and len(text) < _MOST_DIGITS for text in varying[0]):
        return in_order
    numbers = np.array([int(text) for text in varying[0]], dtype=np.int64)
    steps = np.diff(numbers)
    return numbers - numbers[0] if steps.min() == 1 and np.median(steps) == 1 else in_order


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _in_order(files: list[str], timestamp: NDArray[Any]) -> tuple[list[str], NDArray[Any]]:
    order = np.argsort(timestamp, kind="stable")
    return [files[i] for i in order.tolist()], timestamp[order]


def _by_name(
    files: list[str], folder: str, time: TimeSpec, findings: Findings
) -> tuple[list[str], NDArray[Any] | None]:
    pattern = re.compile(time.pattern) if time.pattern is not None else None
    good: list[str] = []
    stamps: list[int | float] = []
    far: list[tuple[str, FarStampsError]] = []
    for file in files:
        try:
            stamps.append(_stamp(_name(file), time, pattern))
            good.append(file)
        except FarStampsError as error:
            far.append((file, error))
        except ValueError:
            findings.add("image.bad_name", file, expected=_wanted(time), found=_name(file))
    if far:
        findings.add("clock.unit", far[0][0], expected=_wanted(time), found=str(far[0][1]), count=len(far))
    try:
        timestamp = clock_of_stamps(stamps, folder, time)
    except FarStampsError as error:
        refuse_far(error, folder, time, findings)
        return good, None
    except (ValueError, OverflowError) as error:
        findings.add("image.bad_name", folder, expected=_wanted(time), found=str(error))
        return good, None
    good, timestamp = _in_order(good, timestamp)
    return good, timestamp if len(good) == len(files) else None


def _stamp(name: str, time: TimeSpec, pattern: re.Pattern[str] | None) -> int | float:
    """Returns the time in one image's name, or the whole number that is to be divided by the rate.

    Raises:
        ValueError: the name holds no such time or number.
    """
    text = _stem(name)
    if pattern is not None:
        match = pattern.search(name)
        if match is None or match[1] is None:
            raise ValueError(name)
        text = match[1]
    if time.index_rate_hz:
        numbers = _DIGITS.findall(text)
        if len(numbers) != 1:
            raise ValueError(text)
        return int(numbers[0])
    if time.format is None:
        if not _DECIMAL.match(text):
            raise ValueError(text)
        return parse_stamp(text, time)
    try:
        return parse_stamp(text, time)
    except ValueError:
        if pattern is not None:
            raise
        return parse_stamp(name, time)  # the format may include the extension


def _wanted(time: TimeSpec) -> str:
    if time.pattern is not None:
        return f"{wanted_stamp(time)} where {time.pattern!r} finds it in the name"
    return "one whole number in the name" if time.index_rate_hz else f"{wanted_stamp(time)} as the name"


def _by_table(
    files: list[str], folder: str, clock: ClockFile, names: tuple[str, ...], findings: Findings
) -> tuple[list[str], NDArray[Any] | None]:
    """Takes each image's stamp from the row that names the image, with or without folder and extension."""
    row_of: dict[str, int] = {}
    for row, cell in enumerate(names):
        name = _name(cell.replace("\\", "/"))
        if row_of.setdefault(name, row) != row:
            line, expected = clock.place.line_of(row), "each image once"
            findings.add("clock.count", clock.place.file, line=line, expected=expected, found=f"{name} again")
            return files, None
    rows = [row_of.get(_name(file), row_of.get(_stem(_name(file)))) for file in files]
    unnamed = [_name(file) for file, row in zip(files, rows, strict=True) if row is None]
    if unnamed:
        expected = f"a row for each image of {folder}"
        found = f"none for {unnamed[0]}"
        findings.add("clock.count", clock.place.file, expected=expected, found=found, count=len(unnamed))
        return files, None
    if len(files) < len(names):
        expected = f"{len(names)} images, one a row of {clock.place.file}"
        findings.add("image.count", folder, expected=expected, found=f"{len(files)}")
    return _in_order(files, clock.timestamp[[row for row in rows if row is not None]])
