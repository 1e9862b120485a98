"""TensorBoard shows the names and steps of metrics.jsonl, in one curve after a resume."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from test_loop import config, lines

from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.files import FOLDER
from vlapipe.train.loop import train


def curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows: each name's steps and values."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events: Any = reading.EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def logged(out: Path) -> dict[str, list[tuple[int, float]]]:
    """The same of metrics.jsonl."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines(out):
        for name in line.keys() - {"step"}:
            found.setdefault(name, []).append((line["step"], pytest.approx(line[name], rel=1e-6)))
    return found


def test_curves_are_those_of_the_metrics_after_a_resume_too(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=6, save_every=4, eval_every=3, tensorboard=True))
    assert curves(out) == logged(out)
    # As if it had been killed after step 6 was logged and before it was saved.
    shutil.rmtree(out / FOLDER / "step-00000006")
    train(config(tiny_dataset, out, max_steps=8, tensorboard=True, resume=True))
    assert [step for step, _ in curves(out)["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert curves(out) == logged(out)


def test_folder_of_a_run_that_ended_early_is_taken_over(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=4, tensorboard=True))
    shutil.rmtree(out / FOLDER)
    train(config(tiny_dataset, out, max_steps=2, tensorboard=True))
    assert curves(out) == logged(out)


def test_without_tensorboard_the_option_is_refused_before_anything_is_made(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match=r"--tensorboard needs tensorboard, which is not installed \(.*pip install"):
        train(config(tiny_dataset, tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_run_without_the_option_writes_no_events(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1))
    assert not (tmp_path / "run" / "tensorboard").exists()
