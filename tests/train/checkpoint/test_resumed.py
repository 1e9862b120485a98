"""A resumed run keeps its learning-rate schedule unless told otherwise, and reports each difference in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from launching import options, run_ranks
from making_checkpoints import edit_state
from test_loop import config, lines

from vlapipe.train.config import CONFIG_FILE, TrainConfig, flat_saved
from vlapipe.train.loop import train

SAYS = "resumed otherwise: "


def resume(out: Path, **changes: Any) -> None:
    train(TrainConfig.from_sources(None, {"out": out, "resume": True, **changes}))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """The lines about changes since it was last called."""
    return lambda: [line.removeprefix(SAYS) for line in capsys.readouterr().err.splitlines() if SAYS in line]


@pytest.fixture(scope="module")
def finished(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps, to be copied."""
    out = tmp_path_factory.mktemp("resumed") / "run"
    train(config(tiny_dataset, out, batch_size=4, eval_every=100, learning_rate=3e-4))
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def rates(out: Path) -> list[float]:
    return [line["train/learning_rate"] for line in lines(out)]


def test_longer_run_stays_at_the_lowest_rate_and_says_how_to_change_that(run: Path, said: Any) -> None:
    resume(run, max_steps=9)
    assert rates(run)[5:] == pytest.approx([3e-5] * 4)
    cure = "--decay-steps 9 lets it fall over all 9 steps"
    assert said() == [f"max_steps is 9, was 6: the learning rate stays at 3e-05 after step 6 ({cure})"]
    resume(run, max_steps=10)
    assert rates(run)[-1] == pytest.approx(3e-5)


@pytest.mark.slow
def test_schedule_is_stretched_if_asked_for_which_is_said(run: Path, said: Any, tiny_dataset: Path) -> None:
    resume(run, max_steps=8, decay_steps=8)
    assert len(said()) == 2
    out = run.with_name("long")
    train(config(tiny_dataset, out, batch_size=4, max_steps=8, warmup_steps=0, eval_every=100, learning_rate=3e-4))
    assert rates(run)[6:] == rates(out)[6:]
    resume(run, max_steps=9, learning_rate=1e-3)
    assert said()[-1].startswith("learning_rate is 0.001, was 0.0003: step 9 has a learning rate of 0.0001, and would")


def test_run_of_an_earlier_version_keeps_its_schedule_too(run: Path) -> None:
    flat = flat_saved(json.loads((run / CONFIG_FILE).read_text()))  # as it was saved then
    del flat["decay_steps"]
    (run / CONFIG_FILE).write_text(json.dumps(flat))
    edit_state(run / "checkpoints" / "step-00000006", lambda state: state.update(config=flat))
    resume(run, max_steps=7)
    assert rates(run)[-1] == pytest.approx(3e-5)


def test_batch_and_accumulation_are_said_with_what_a_step_sees(run: Path, said: Any) -> None:
    resume(run, max_steps=7, batch_size=2, grad_accum=4, grad_clip=0.5)
    assert [line for line in said() if not line.startswith("max_steps")] == [
        "batch_size is 2, was 4: a step now sees 8 samples, twice as many as before (4)",
        "grad_accum is 4, was 1: a step now sees 8 samples, twice as many as before (4)",
        "grad_clip is 0.5, was 1.0",
    ]
    resume(run, max_steps=8, batch_size=4, grad_accum=2, num_workers=2, log_every=1)
    assert [line.partition(": ")[2] for line in said() if "_accum" in line or "batch" in line] == [
        "a step still sees 8 samples"
    ] * 2


def test_number_of_ranks_is_said(run: Path) -> None:
    changes = json.loads((run / CONFIG_FILE).read_text()) | {"resume": True, "out": str(run), "max_steps": 7}
    first, *_ = run_ranks(changes, num_ranks=2)
    assert first.code == 0, first
    assert f"{SAYS}ranks are 2, were 1: a step now sees 8 samples, twice as many as before (4)\n" in first.err


def test_resume_as_before_says_nothing(run: Path, said: Any) -> None:
    shutil.copytree(run, run.with_name("same"))
    resume(run.with_name("same"), max_steps=6, num_workers=2, wandb="disabled", keep_checkpoints=1)
    assert said() == []


def test_resume_that_makes_no_step_changes_nothing_for_the_next_one(run: Path, said: Any) -> None:
    before = (run / CONFIG_FILE).read_bytes()
    resume(run, batch_size=8, learning_rate=1.0)
    assert (run / CONFIG_FILE).read_bytes() == before
    assert said() == []
    resume(run, max_steps=7)
    assert [line.partition(" ")[0] for line in said()] == ["max_steps"]
    resume(run, max_steps=8, batch_size=8)
    said()
    resume(run, max_steps=9)
    assert json.loads((run / CONFIG_FILE).read_text())["data"]["batch_size"] == 8


def test_new_run_whose_rate_falls_over_other_steps_says_so(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"learning_rate": 3e-4, "decay_steps": 4}
    train(config(tiny_dataset, tmp_path / "run", max_steps=2, eval_every=100, **schedule))
    assert "decay_steps is 4, max_steps 2: the learning rate falls over 4 steps, to 0.00023" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["data/b", "./data/b"])
def test_weights_by_relative_path_are_resumed_from_another_folder_and_go_along_when_datasets_move(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any, name: str
) -> None:
    for folder in ("data/a", "data/b"):
        shutil.copytree(tiny_dataset, tmp_path / folder)
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "train.toml"
    file.write_text(f'data = ["data/a", "data/b"]\n[weights.dataset]\n"{name}" = 0.0\n')
    monkeypatch.chdir(tmp_path)
    small = {key: value for key, value in options(Path(), Path("run"), max_steps=1).items() if key != "data"}
    train(TrainConfig.from_sources(file, small))
    saved = json.loads((tmp_path / "run" / CONFIG_FILE).read_text())
    assert saved["data"]["weights"] == {"dataset": {str(tmp_path / "data/b"): 0.0}}
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume(Path("../run"), max_steps=2)
    (tmp_path / "data").rename(tmp_path / "moved")
    resume(Path("../run"), max_steps=3, data=["../moved/a", "../moved/b"])
    assert [line.partition(" ")[0] for line in said()] == ["max_steps", "max_steps", "data"]
    # As an earlier version kept it, seen from where it means nothing.
    weights = {"dataset": {"moved/b": 0.0}}
    file = tmp_path / "run" / CONFIG_FILE
    values = json.loads(file.read_text())
    values["data"]["weights"] = weights
    file.write_text(json.dumps(values))
    edit_state(
        tmp_path / "run/checkpoints/step-00000003", lambda state: state["config"]["data"].update(weights=weights)
    )
    resume(Path("../run"), max_steps=4)
    assert lines(tmp_path / "run")[-1]["step"] == 4
