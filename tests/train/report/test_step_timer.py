"""A step's time is split into phases, on a GPU by what the GPU waits for."""

from __future__ import annotations

import time

import pytest
import torch

from vlapipe.train.report import step_timer as phases
from vlapipe.train.report.step_timer import PHASES, StepTimer


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
    return timer.take().read()


def test_phases_add_up_within_a_step(clock: list[float]) -> None:
    timer = StepTimer(torch.device("cpu"))
    with timer.phase("forward"):
        clock[0] += 1
    read = spend(timer, clock, data=2, forward=3)
    assert read == {**dict.fromkeys(PHASES, 0.0), "data": 2.0, "forward": 4.0}


def test_time_of_a_phase_leaves_out_the_phases_inside_it(clock: list[float]) -> None:
    timer = StepTimer(torch.device("cpu"))
    with timer.phase("ranks"):
        clock[0] += 1
        with timer.phase("data"):
            clock[0] += 5
        clock[0] += 1
    assert timer.take().read() == {**dict.fromkeys(PHASES, 0.0), "data": 5.0, "ranks": 2.0}


@pytest.mark.gpu
def test_device_time_is_measured_on_the_device() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda")
    timer = StepTimer(device)
    x = torch.randn(4096, 4096, device=device)
    with timer.phase("forward"):
        for _ in range(50):
            x = x @ x * 1e-3
    times = timer.take()
    torch.cuda.synchronize()
    assert times.read()["forward"] > 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("gpu_is_busy", [True, False])
def test_wait_counts_only_as_far_as_the_device_waits(gpu_is_busy: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda")
    timer = StepTimer(device)
    x = torch.randn(8192, 8192, device=device)
    torch.cuda.synchronize()
    for _ in range(100 if gpu_is_busy else 0):
        x = x @ x * 1e-3
    began = time.perf_counter()
    with timer.phase("ranks"), timer.phase("data"):
        time.sleep(0.1)
    assert time.perf_counter() - began < 0.2
    times = timer.take()
    torch.cuda.synchronize()
    read = times.read()
    assert read["data"] < 0.05 if gpu_is_busy else read["data"] > 0.09
    assert abs(read["ranks"]) < 0.05
