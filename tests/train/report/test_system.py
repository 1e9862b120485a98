"""The machine's values of a line are plausible, and cost a CPU run no thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vlapipe.train.report import system
from vlapipe.train.report.system import BusyMeter, cpu_memory_percent, gpu_memory_gb, system_values

CPU = torch.device("cpu")


def test_memory_figures_are_plausible() -> None:
    assert 0.0 < cpu_memory_percent() <= 100.0
    assert gpu_memory_gb(CPU) == 0.0


def test_unknown_memory_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_MEMINFO", Path("/nonexistent"))
    assert cpu_memory_percent() == 0.0


def test_cpu_is_never_a_busy_gpu_and_has_no_thread(new_threads: Callable[[str], list[threading.Thread]]) -> None:
    with BusyMeter(CPU) as busy:
        assert not new_threads("vlapipe")
        assert system_values(CPU, busy)["system/gpu_busy_%"] == 0.0


@pytest.mark.gpu
def test_gpu_at_work_is_busy() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    pytest.importorskip("pynvml")
    x = torch.randn(8192, 8192, device="cuda")
    with BusyMeter(x.device) as busy:
        ends = time.perf_counter() + 3
        while time.perf_counter() < ends:
            x = x @ x * 1e-3
            torch.cuda.synchronize()
        assert busy.take() > 50
        assert busy.take() > 50  # the newest value holds until there is another
