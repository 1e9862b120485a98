"""Checks one stream's clock: it must run forwards, and should tick evenly, without gaps, at the declared rate."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.location import clock_location, clock_row
from vlapipe.pipeline.shards.derive.gaps import find_gaps
from vlapipe.pipeline.shards.derive.stamps import seconds, seconds_between
from vlapipe.pipeline.stream_rows import Rows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import NANOSECONDS, CheckSpec, Stream, TimeUnit

__all__ = ["RATE_TOLERANCE", "check_clock", "steps_s"]

RATE_TOLERANCE = 0.2  # a larger relative distance from the declared rate is worth a warning
_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
_OUR_TIME_S = (946_684_800, 4_102_444_800)  # 2000 to 2100
_LEAST_STEP_S = 0.0005  # limit for a clock that may have begun at 0 a few days before
_LONGEST_STEP_S = 60.0
_LEAST_STEPS = 19  # fewer steps say little about how evenly a clock ticks


def steps_s(timestamp: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the seconds from each row to the next, ``(rows - 1,)``; subtracted first, then converted."""
    return seconds(timestamp[1:] - timestamp[:-1])


def check_clock(rows: Rows, stream: Stream, checks: CheckSpec, findings: Findings) -> bool:
    """Reports a clock's faults. Returns ``False`` if it runs backwards or has another unit: no later check applies."""
    if rows.num_rows < 2:
        return True
    label, column = clock_location(rows).file, clock_location(rows).column
    steps = steps_s(rows.timestamp)
    shortest = float(steps.min())
    if shortest < 0:
        back = np.flatnonzero(steps < 0)
        row = int(back[0]) + 1
        line, where = clock_row(rows, row)
        by = f"{seconds_between(rows.timestamp, row, row - 1):.6g} s earlier{where}"
        expected = "a later time than the row before"
        findings.add("clock.backwards", label, line=line, column=column, expected=expected, found=by, count=len(back))
        return False
    if not _check_unit(rows, steps, stream, findings):
        return False
    if shortest == 0:
        same = np.flatnonzero(steps == 0)
        line, where = clock_row(rows, int(same[0]) + 1)
        found = f"the stamp of the row before{where}"
        findings.add("clock.duplicate", label, line=line, column=column, found=found, count=len(same))
    gaps = find_gaps(rows.timestamp, stream.max_gap_s)
    if len(gaps):
        line, where = clock_row(rows, int(gaps[0]))
        expected = f"a row every {stream.max_gap_s:g} s or sooner"
        found = f"{steps[gaps[0] - 1]:.6g} s without one{where}"
        findings.add("clock.gap", label, line=line, column=column, expected=expected, found=found, count=len(gaps))
        steps = np.delete(steps, gaps - 1)
    if len(steps):
        _check_rate(steps, stream, label, column, findings)
        _check_jitter(steps, checks, label, column, findings)
    return True


def _check_unit(rows: Rows, steps: NDArray[np.float64], stream: Stream, findings: Findings) -> bool:
    """Returns ``False`` if the stamps are in another unit than the schema says; readers refuse impossible years.

    With a declared rate, the unit is wrong if stamps in another unit would have that rate. (Minutes and hours are no
    such units unless the schema says one of them: a rate of 1 Hz instead of 60 Hz is a rate.) Without a declared rate,
    the unit is wrong if the clock lies in January 1970, its steps are shorter than any robot's, and its numbers taken
    for a larger unit lie between 2000 and 2100.
    """
    time = stream.time
    if time.format or time.index_rate_hz or time.parts or time.plus or time.rate_line:
        return True
    step = float(np.median(steps))
    if step <= 0:
        return True
    others = _UNITS if time.unit in _UNITS else get_args(TimeUnit)
    factors = {unit: NANOSECONDS[unit] / NANOSECONDS[time.unit] for unit in others if unit != time.unit}
    line, where = clock_row(rows, 0)
    if stream.rate_hz:
        periods = stream.rate_hz * step
        likelier = next((unit for unit, factor in factors.items() if abs(periods * factor - 1) <= RATE_TOLERANCE), None)
        expected, found = f"about {stream.rate_hz:g} Hz by a time in {time.unit}", f"{1 / step:.4g} Hz"
    else:
        first = float(seconds(rows.timestamp[:1])[0])
        larger = [(unit, factor) for unit, factor in factors.items() if factor > 1 and unit in _UNITS][::-1]
        fits = ((unit, factor) for unit, factor in larger if _OUR_TIME_S[0] <= first * factor <= _OUR_TIME_S[1])
        likelier, factor = next(fits, (None, 1.0))
        if step > _LEAST_STEP_S or step * factor > _LONGEST_STEP_S:
            return True
        expected, found = f"a time in {time.unit}", f"stamps in January 1970, {step:.3g} s apart"
    if likelier is None:
        return True
    place = clock_location(rows)
    found += f"{where}: {likelier}?"
    findings.add("clock.unit", place.file, line=line, column=place.column, expected=expected, found=found)
    return False


def _check_rate(steps: NDArray[np.float64], stream: Stream, label: str, column: str | None, findings: Findings) -> None:
    span = float(steps.sum())
    rate = len(steps) / span if span > 0 else float("inf")
    if stream.rate_hz and abs(rate - stream.rate_hz) > RATE_TOLERANCE * stream.rate_hz:
        expected = f"about {stream.rate_hz:g} Hz"
        findings.add("clock.rate", label, column=column, expected=expected, found=f"{rate:.4g} Hz")


def _check_jitter(
    steps: NDArray[np.float64], checks: CheckSpec, label: str, column: str | None, findings: Findings
) -> None:
    if len(steps) < _LEAST_STEPS:
        return
    spread = float(steps.std())
    if spread <= checks.max_jitter * float(steps.min()):
        return  # the median is no smaller than the minimum, but takes three times as long to find
    median = float(np.median(steps))
    if median > 0 and spread > checks.max_jitter * median:
        expected = f"steps that spread by {checks.max_jitter:g} of their median or less"
        found = f"{spread / median:.3g} of {median:.4g} s; the longest is {float(steps.max()):.4g} s"
        findings.add("clock.jitter", label, column=column, expected=expected, found=found)
