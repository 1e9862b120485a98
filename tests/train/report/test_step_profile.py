"""--profile writes a trace of a few steps, in which the phases have their names; when off, it costs nothing."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from launching import SMALL, options, run_ranks
from test_loop import config

from vlapipe.train.build import build
from vlapipe.train.loop import train

PHASES = ("data", "forward", "backward", "optimizer")


def phases_of(file: Path) -> dict[str, int]:
    """How often each phase is in a trace."""
    with gzip.open(file) as opened:
        events = json.load(opened)["traceEvents"]
    counted = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    return {name: counted[name] for name in PHASES}


def test_steps_after_the_first_are_traced_with_their_phases(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=10, profile=2))
    [file] = (out / "profile").iterdir()
    # Five are skipped, one warms the profiler up.
    assert file.name == "step-00000008-rank-0.json.gz"
    assert phases_of(file) == dict.fromkeys(PHASES, 2)
    said = capsys.readouterr().err
    assert f"profile: the 2 steps up to 8 are in {file}; open it in https://ui.perfetto.dev" in said


def test_short_run_is_traced_from_its_second_step(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=3, profile=2))
    [file] = (tmp_path / "run" / "profile").iterdir()
    assert file.name == "step-00000003-rank-0.json.gz"
    assert phases_of(file) == dict.fromkeys(PHASES, 2)


def test_run_that_is_stopped_keeps_the_steps_so_far(tiny_dataset: Path, tmp_path: Path) -> None:
    policy = {"policy": "policies_under_test:SignalAtStep", "policy_args": SMALL | {"at": 8}}
    train(config(tiny_dataset, tmp_path / "run", max_steps=99, profile=20, **policy))
    [file] = (tmp_path / "run" / "profile").iterdir()
    assert file.name == "step-00000008-rank-0.json.gz"
    assert phases_of(file) == dict.fromkeys(PHASES, 2)  # of the steps 7 and 8


def test_run_without_a_step_to_trace_says_so(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1, profile=2))
    assert "profile: the run ended before a step could be traced" in capsys.readouterr().err
    assert not (tmp_path / "run" / "profile").exists()


def test_folder_that_cannot_be_written_does_not_stop_the_run(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with build(config(tiny_dataset, tmp_path / "run", max_steps=4, profile=1)):
        pass
    (tmp_path / "run" / "profile").write_text("in the way")
    train(config(tiny_dataset, tmp_path / "run", max_steps=4, profile=1))
    assert "rank-0.json.gz cannot be written: File exists" in capsys.readouterr().err


def test_off_is_off(tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the profiler is used")

    monkeypatch.setattr(torch.profiler, "profile", refuse)
    monkeypatch.setattr(torch.profiler, "record_function", refuse)
    train(config(tiny_dataset, tmp_path / "run", max_steps=2))
    assert not (tmp_path / "run" / "profile").exists()


@pytest.mark.slow
def test_every_rank_writes_a_trace_of_its_own(tiny_dataset: Path, tmp_path: Path) -> None:
    ranks = run_ranks(options(tiny_dataset, tmp_path / "run", max_steps=3, profile=1, eval_batches=1))
    assert [rank.code for rank in ranks] == [0, 0, 0, 0], ranks[0].err
    files = sorted((tmp_path / "run" / "profile").iterdir())
    assert [file.name for file in files] == [f"step-00000003-rank-{rank}.json.gz" for rank in range(4)]
    for file in files:
        assert phases_of(file) == dict.fromkeys(PHASES, 1)
