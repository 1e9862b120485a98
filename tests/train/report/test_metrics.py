"""metrics.jsonl has each step once, after any kill and resume."""

from __future__ import annotations

import json
import math
from pathlib import Path

from vlapipe.train.report.metrics import METRICS_FILE, MetricsLog, median_ends, read_metrics


def test_lines_are_json_with_the_step_first_and_can_be_followed(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"train/loss": 0.5, "system/cpu_mem_%": 3.0})
        assert (tmp_path / METRICS_FILE).read_text() == '{"step": 1, "train/loss": 0.5, "system/cpu_mem_%": 3.0}\n'


def test_number_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"val/loss": math.nan, "train/grad_norm": math.inf})
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == {"step": 1, "val/loss": None, "train/grad_norm": None}


def test_resume_cuts_off_what_lies_past_the_checkpoint_and_a_torn_line(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        for step in range(1, 6):
            log.write(step, {"train/loss": step / 10})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 6, "train/lo')
    with MetricsLog(tmp_path, resumed_step=3) as log:
        log.write(4, {"train/loss": 9.0})
    lines = read_metrics(tmp_path / METRICS_FILE)
    assert [(line["step"], line["train/loss"]) for line in lines] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 9.0)]


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"step": 2, "tr')
    assert read_metrics(tmp_path / METRICS_FILE) == [{"step": 1}]


def test_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / METRICS_FILE) == []


def test_ends_are_medians_of_a_twentieth() -> None:
    lines = [{"train/loss": float(i)} for i in range(100)]
    assert median_ends(lines) == (2.0, 97.0)
    assert median_ends(lines[:3]) == (0.0, 2.0)
    assert median_ends([{"train/loss": None}, {"train/loss": 4.0}, {}]) == (4.0, 4.0)


def test_ends_of_nothing_are_nan() -> None:
    assert all(math.isnan(value) for value in median_ends([]))
