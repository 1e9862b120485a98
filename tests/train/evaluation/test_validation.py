"""Validation tells the error of the actions beside the yardsticks; the same figures come from the saved run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from launching import torchrun

from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.evaluation.saved_run import evaluate_on_dataset
from vlapipe.train.loop import train
from vlapipe.train.report.metrics import METRICS_FILE, read_metrics
from vlapipe.train.report.outputs import VALIDATION_FILE

ALL = 10_000


def options(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    given = {"max_steps": 4, "eval_every": 2, "batch_size": 8, "num_workers": 0, "policy": "tiny_policy:TinyPolicy"}
    return {"data": str(data), "out": str(out), "wandb": "disabled", "precision": "fp32", **given, **changes}


def errors_of(line: dict[str, Any]) -> dict[str, float]:
    """The known ones: no chunk of these short episodes has all its actions."""
    found = {key: value for key, value in line.items() if key.startswith("val/action_error")}
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}


def test_figures_are_logged_said_and_those_of_the_saved_run(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(TrainConfig.of(**options(tiny_dataset, out)))
    lines = [line for line in read_metrics(out / METRICS_FILE) if "val/loss" in line]
    assert [line["step"] for line in lines] == [2, 4]
    same, other = ([line[f"val/action_error{end}"] for line in lines] for end in ("_of_hold", ""))
    assert same[0] == same[1]  # the yardsticks of the first validation
    assert other[0] != other[1]
    said = capsys.readouterr().err
    assert "validation at step 4: action error" in said
    assert "pose_x" in said
    assert " mm" in said
    figures = json.loads((out / VALIDATION_FILE).read_text())
    assert figures["step"] == 4
    assert set(figures["predictors"]) == {"policy", "mean", "hold", "nearest"}
    assert figures["predictors"]["mean"]["relative"] == pytest.approx(1)

    result = evaluate_on_dataset(out, tiny_dataset, frames=ALL, pages=1)
    assert len(errors_of(lines[1])) > 12
    assert errors_of(result.figures.metrics("val")) == pytest.approx(errors_of(lines[1]), rel=1e-4, abs=1e-6)
    assert [page.name.partition("-")[0] for page in result.pages] == ["episode"]
    assert all(page.is_file() for page in result.pages)
    assert json.loads((out / "eval" / "data-val.json").read_text())["num_frames"] == result.num_frames


@pytest.mark.parametrize(
    ("name", "told"), [("ActsLater", "act is not written"), ("FirstAction", "act gives (8, 7), expected the chunk")]
)
def test_policy_whose_act_gives_no_chunk_is_trained_and_told(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    train(TrainConfig.of(**options(tiny_dataset, tmp_path, policy=f"policies_under_evaluation:{name}")))
    line = read_metrics(tmp_path / METRICS_FILE)[-1]
    assert "val/loss" in line
    assert not errors_of(line)
    assert capsys.readouterr().err.count(f"the action error is not measured: {told}") == 1


def test_dataset_of_another_kind_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(TrainConfig.of(**options(tiny_dataset, out, sample={"action_rows": 3})))
    with pytest.raises(UsageError, match="unknown split 'test'"):
        evaluate_on_dataset(out, tiny_dataset, split="test")
    config = json.loads((out / "config.json").read_text())
    config["sample"] = {"action_rows": 4}
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"action is \(4, 7\), the policy was trained on \(3, 7\)"):
        evaluate_on_dataset(out, tiny_dataset)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_find_what_one_finds(tiny_dataset: Path, tmp_path: Path, parallel: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(TrainConfig.of(**options(tiny_dataset, one, batch_size=8)))
    found = torchrun(options(tiny_dataset, two, batch_size=4, parallel=parallel), num_ranks=2)
    assert found.returncode == 0, found.stderr
    wanted, ours = (errors_of(read_metrics(out / METRICS_FILE)[-1]) for out in (one, two))
    assert ours == pytest.approx(wanted, rel=1e-3, abs=1e-6)
