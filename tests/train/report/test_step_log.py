"""The speed that a line says leaves out validations and checkpoints, on whichever side of the step they fall."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.report import step_log
from vlapipe.train.report.metrics import MetricsLog, read_metrics
from vlapipe.train.report.outputs import Outputs
from vlapipe.train.report.step_log import StepLog, StepOutcome
from vlapipe.train.report.step_timer import StepTimer
from vlapipe.train.report.system import BusyMeter


def test_validation_and_checkpoint_do_not_count_as_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(step_log.time, "perf_counter", lambda: now[0])
    device = torch.device("cpu")
    timer = StepTimer(device)
    progress = Progress("train", 3, "step", silent=True)
    with MetricsLog(tmp_path) as file, BusyMeter(device) as busy:
        outputs = Outputs(file=file, sinks=[], device=device, busy=busy)
        log = StepLog(progress=progress, every=1, num_samples=4, check=lambda _: None, outputs=outputs, peak_share=0.01)
        for step in (1, 2, 3):
            now[0] += 0.5
            values = torch.tensor([1.0, 0.0, 2.0, 2.0], dtype=torch.float64)
            outcome = StepOutcome(
                step=step, values=values, names=(), learning_rate=0.1, times=timer.take(), stop=False, data_position={}
            )
            with log.aside("validation"):
                now[0] += 7.0
            log.add(outcome, {"val/loss": 1.0}, now=step >= 2)
            with log.aside("checkpoints"):
                now[0] += 3.0
    written = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["train/step"] for line in written] == pytest.approx([2.0] * 3)
    assert [line["train/samples_per_s"] for line in written] == pytest.approx([8.0] * 3)
    assert [line["train/mfu_%"] for line in written] == pytest.approx([8.0] * 3)
    # The first step is not counted: it builds caches and compiles.
    assert (log.spent.num_steps, log.spent.steps_s) == (2, pytest.approx(1.0))
    assert log.spent.aside == {"validation": 21.0, "checkpoints": 9.0}
    assert log.spent.shares["other"] == pytest.approx(1 / 31)
