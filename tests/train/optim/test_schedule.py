"""The learning rate depends only on the step, begins and ends where it should, and makes no jump."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.train.optim.schedule import SCHEDULES, Schedule

SCHEDULE = Schedule(learning_rate=1.0, warmup_steps=10, decay_steps=110, min_ratio=0.1)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    warmup = draw(st.integers(0, 50))
    falls = draw(st.integers(2, 300))
    stable = draw(st.none() | st.integers(0, 300))
    return Schedule(
        learning_rate=draw(st.floats(1e-6, 10.0)),
        warmup_steps=warmup,
        decay_steps=warmup + (stable or 0) + falls,
        min_ratio=draw(st.floats(0.0, 1.0)),
        kind=draw(st.sampled_from(SCHEDULES)),
        stable_steps=stable,
    )


def test_rate_rises_in_a_line_to_its_highest() -> None:
    assert [round(SCHEDULE.at(step), 9) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]


def test_rate_falls_to_its_lowest_at_the_last_step_and_stays() -> None:
    rates = [SCHEDULE.at(step) for step in range(10, 110)]
    assert rates == sorted(rates, reverse=True)
    assert SCHEDULE.at(109) == pytest.approx(0.1)
    assert SCHEDULE.at(500) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("max_steps", [1, 2, 3])
def test_shortest_runs_have_a_rate(kind: str, max_steps: int) -> None:
    schedule = Schedule(learning_rate=1.0, warmup_steps=0, decay_steps=max_steps, min_ratio=0.0, kind=kind)
    assert schedule.at(0) == 1.0


@pytest.mark.parametrize(
    ("kind", "stable", "rates"),
    [
        ("constant", None, {9: 1.0, 10: 1.0, 60: 1.0, 109: 1.0, 10**6: 1.0}),
        ("linear", None, {9: 1.0, 10: 1.0, 43: 0.7, 109: 0.1, 500: 0.1}),
        ("wsd", 40, {9: 1.0, 10: 1.0, 50: 1.0, 109: 0.1, 500: 0.1}),
        ("wsd", None, {9: 1.0, 10: 1.0, 88: 1.0, 109: 0.1, 500: 0.1}),  # the last fifth of 110 steps is from 88 on
    ],
)
def test_rates_at_the_corners(kind: str, stable: int | None, rates: dict[int, float]) -> None:
    schedule = Schedule(
        learning_rate=1.0, warmup_steps=10, decay_steps=110, min_ratio=0.1, kind=kind, stable_steps=stable
    )
    assert {step: schedule.at(step) for step in rates} == pytest.approx(rates)


def test_wsd_falls_in_its_last_fifth_alone() -> None:
    schedule = Schedule(learning_rate=1.0, warmup_steps=10, decay_steps=100, min_ratio=0.0, kind="wsd")
    assert [step for step in range(10, 100) if schedule.at(step) < 1.0] == [*range(81, 100)]


@given(schedules())
def test_begins_low_is_highest_after_the_warm_up_and_ends_at_its_lowest(schedule: Schedule) -> None:
    highest, lowest = schedule.learning_rate, schedule.learning_rate * schedule.min_ratio
    rates = [schedule.at(step) for step in range(schedule.decay_steps + 5)]
    warmup = schedule.warmup_steps
    assert rates[warmup] == pytest.approx(highest)
    assert rates[:warmup] == pytest.approx([highest * (i + 1) / warmup for i in range(warmup)])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-6:] == pytest.approx([highest if schedule.kind == "constant" else lowest] * 6)


@given(schedules())
def test_makes_no_jump(schedule: Schedule) -> None:
    rates = [schedule.at(step) for step in range(schedule.decay_steps + 5)]
    stable = schedule.stable_steps if schedule.kind == "wsd" else 0
    if stable is None:
        falls = min(max(2, schedule.decay_steps // 5), schedule.decay_steps - schedule.warmup_steps)
    else:
        falls = schedule.decay_steps - schedule.warmup_steps - stable
    # Half a cosine is steepest in its middle: pi / 2 times as steep as the line.
    steepest = max(1 / max(1, schedule.warmup_steps), 1.5708 / max(1, falls - 1)) * schedule.learning_rate
    assert max(abs(a - b) for a, b in zip(rates[1:], rates, strict=False)) <= steepest * (1 + 1e-6)


@given(schedules(), st.integers(0, 1000), st.integers(0, 1000))
def test_resumed_run_has_the_rates_of_the_uninterrupted_one(schedule: Schedule, first: int, step: int) -> None:
    straight = [schedule.at(i) for i in range(first, first + 5)]
    schedule.at(step)  # asked for another step in between
    again = Schedule(**vars(schedule))
    assert [again.at(i) for i in range(first, first + 5)] == straight
