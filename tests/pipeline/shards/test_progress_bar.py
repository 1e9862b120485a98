"""The remaining time is estimated from the recent pace and not shown before that is known, in ingest and training."""

from __future__ import annotations

import time

import pytest

from vlapipe.pipeline.shards import progress_bar as progress
from vlapipe.pipeline.shards.progress_bar import Progress, TimeLeft


def test_slow_start_and_an_earlier_pace_do_not_count() -> None:
    left = TimeLeft()
    for i in range(10):  # 20 s each
        left.mark(i, now=100 + 20 * i)
    for i in range(200):  # 0.5 s each
        left.mark(10 + i, now=300 + 0.5 * i)
    assert left.seconds(274, now=399.5) == pytest.approx(32, rel=0.05)
    assert left.text(274, now=399.5) == "about 32 s left"


def test_nothing_is_said_before_a_pace_is_known() -> None:
    left = TimeLeft()
    for i in range(3):
        left.mark(i, now=10.0 * i)
        assert left.text(100, now=10.0 * i) == ""
    quick = TimeLeft()
    for i in range(50):
        quick.mark(i, now=0.01 * i)
    assert quick.text(100, now=0.5) == ""


def test_time_since_the_last_step_is_taken_off() -> None:
    left = TimeLeft()
    for i in range(20):
        left.mark(i, now=10.0 * i)
    assert left.seconds(22, now=195.0) == pytest.approx(25)
    assert left.seconds(20, now=1000.0) == 0


def test_long_times_are_in_minutes_and_hours() -> None:
    left = TimeLeft()
    for i in range(20):
        left.mark(i, now=10.0 * i)
    assert left.text(79, now=190) == "about 10 min left"
    assert left.text(1099, now=190) == "about 3.0 h left"


def test_memory_does_not_grow_with_the_steps() -> None:
    left = TimeLeft()
    for i in range(100_000):
        left.mark(i, now=i / 1000)
    assert left.seconds(200_000, now=100.0) == pytest.approx(100, rel=0.02)
    assert len(left._marks) < 200


@pytest.mark.parametrize("who", ["ingest", "train"])
def test_first_lines_of_a_run_name_no_time(
    who: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    bar = Progress(who, 100, "episode")
    for i in range(50):
        clock[0] += 60 if i == 0 else 1.0
        if who == "train":
            bar.reach(i + 1, "loss 0.500")
        else:
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert ["left" in line for line in lines[:3]] == [False] * 3
    assert lines[-1].endswith(", about 50 s left")
