"""A step's time is split into phases, and the phase that limits the run is named."""

from __future__ import annotations

import pytest
import torch

from vlapipe.train.report import step_timer as phases
from vlapipe.train.report.step_timer import PHASES, StepTimer, bottleneck


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the timer sees; its one entry can be changed."""
    now = [0.0]
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now[0])
    return now


def spend(timer: StepTimer, clock: list[float], **seconds: float) -> dict[str, float]:
    for name, duration in seconds.items():
        with timer.phase(name):
            clock[0] += duration
    return timer.read()


def test_phases_add_up_within_a_step(clock: list[float]) -> None:
    timer = StepTimer(torch.device("cpu"))
    with timer.phase("compute"):
        clock[0] += 1
    read = spend(timer, clock, data=2, compute=3)
    assert read == {"data": 2.0, "h2d": 0.0, "compute": 4.0, "optimizer": 0.0}
    assert set(read) == set(PHASES)


def test_totals_leave_the_first_step_out(clock: list[float]) -> None:
    timer = StepTimer(torch.device("cpu"))
    spend(timer, clock, data=100)
    assert timer.num_steps == 0
    spend(timer, clock, compute=1)
    spend(timer, clock, compute=2, data=1)
    assert timer.num_steps == 2
    assert timer.totals == {"data": 1.0, "h2d": 0.0, "compute": 3.0, "optimizer": 0.0}


@pytest.mark.parametrize(
    ("totals", "name", "share"),
    [((1, 0, 8, 1), "compute", 0.8), ((3, 0, 6, 1), "data", 0.3), ((0, 1, 2, 7), "optimizer", 0.7)],
)
def test_bottleneck_is_the_largest_phase_or_waiting_for_data(totals: tuple[int, ...], name: str, share: float) -> None:
    found = bottleneck(dict(zip(PHASES, map(float, totals), strict=True)))
    assert found[0] == name
    assert found[1] == pytest.approx(share)


def test_no_time_has_no_bottleneck() -> None:
    assert bottleneck(dict.fromkeys(PHASES, 0.0)) == ("", 0.0)


@pytest.mark.gpu
def test_device_time_is_measured_on_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda")
    timer = StepTimer(device)
    x = torch.randn(4096, 4096, device=device)
    with timer.phase("compute"):
        for _ in range(50):
            x = x @ x * 1e-3
    assert timer.read()["compute"] > 1e-3
