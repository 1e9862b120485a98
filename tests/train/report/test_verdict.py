"""At the end of a run two lines name what held it back and what the cure would gain, by the times of that run alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vlapipe.train.report.step_timer import PHASES
from vlapipe.train.report.verdict import Setting, TimeSpent, Verdict, judge

SETTING = Setting(
    on_gpu=False,
    compiles=False,
    faster_in_bf16=False,
    num_workers=None,
    most_workers=8,
    grad_accum=4,
    eval_every=50,
    save_every=100,
)


def spent(aside: dict[str, float] | None = None, rest_s: float = 0.0, **phases: float) -> TimeSpent:
    """Ten steps with these seconds in their phases, and ``rest_s`` between the phases."""
    seconds = dict.fromkeys(PHASES, 0.0) | phases
    return TimeSpent(phases=seconds, aside=aside or {}, steps_s=sum(seconds.values()) + rest_s, num_steps=10)


def verdict(time: TimeSpent, **setting: Any) -> Verdict:
    found = judge(time, replace(SETTING, **setting))
    assert found is not None
    return found


def test_waiting_for_data_is_named_with_its_share_and_what_it_costs() -> None:
    found = verdict(spent(data=3.0, forward=2.0, backward=4.0, optimizer=1.0))
    assert found.cause == "data"
    assert found.lines[0] == (
        "held back by waiting for data, 30 % of the time; a step took 1,000 ms "
        "(backward 40 %, forward 20 %, optimizer 10 %)"
    )
    assert found.lines[1].endswith(": 1.43 times as many samples/s at most, when no step waits for data")
    assert found.gain == pytest.approx(10 / 7)


def test_little_waiting_for_data_is_not_the_cause() -> None:
    found = verdict(spent(data=1.9, forward=2.0, backward=4.0, optimizer=2.1))
    assert found.cause == "compute"
    assert found.gain == pytest.approx(1 / (1 - 0.6 / 2))


@pytest.mark.parametrize(
    ("time", "cause", "way", "gain"),
    [
        (spent(optimizer=6, forward=4), "optimizer", "try --grad-accum 8:", 1 / 0.7),
        (spent(ranks=6, forward=4), "ranks", "try equally fast machines", 2.5),
        (spent(h2d=6, forward=4), "h2d", "try smaller images:", 2.5),
        (spent(forward=4, aside={"validation": 6}), "validation", "try --eval-every 100:", 1 / 0.7),
        (spent(forward=4, aside={"checkpoints": 6}), "checkpoints", "try --save-every 200:", 1 / 0.7),
        (spent(forward=4, rest_s=6), "other", "try a larger log_every:", 2.5),
    ],
)
def test_each_cause_has_its_cure_and_the_gain_is_at_most_its_share(
    time: TimeSpent, cause: str, way: str, gain: float
) -> None:
    found = verdict(time)
    assert found.cause == cause
    assert found.lines[1].startswith(way)
    assert found.gain == pytest.approx(gain)
    assert f"{gain:.2f} times" in found.lines[1]


@pytest.mark.parametrize(
    ("setting", "ways"),
    [
        ({}, "smaller images, a GPU"),
        ({"faster_in_bf16": True}, "--precision bf16, smaller images, a GPU"),
        ({"on_gpu": True}, "--compile, smaller images, more GPUs"),
        ({"on_gpu": True, "compiles": True}, "smaller images, more GPUs"),
    ],
)
def test_advice_leaves_out_what_is_used_or_impossible(setting: dict[str, bool], ways: str) -> None:
    assert verdict(spent(forward=1, backward=2), **setting).lines[1].startswith(f"try {ways}: 2.00 times")


def test_more_threads_are_advised_only_to_a_run_that_limits_them() -> None:
    time = spent(data=5, forward=5)
    assert verdict(time, num_workers=2).lines[1].startswith("try --num-workers 8: 2.00 times")
    for enough in (None, 8, 16):
        assert "--num-workers" not in verdict(time, num_workers=enough).lines[1]


def test_shares_add_up_to_the_whole_time() -> None:
    shares = spent(data=1, forward=2, backward=3, rest_s=2, aside={"validation": 2}).shares
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["other"] == pytest.approx(0.2)
    overlapping = TimeSpent(phases=dict.fromkeys(PHASES, 1.0), steps_s=5.0, num_steps=1)  # a GPU's clock and the host's
    assert sum(overlapping.shares.values()) == pytest.approx(1)


def test_no_timed_step_has_no_verdict() -> None:
    assert judge(TimeSpent(), SETTING) is None
    assert judge(TimeSpent(aside={"validation": 1.0}), SETTING) is None
