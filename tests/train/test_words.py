"""Runs with words: instructions longer than what the policy reads are told, and ``where`` goes with the run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import SMALL
from tiny_lab import ingest_lab, make_lab, schema_text

import vlapipe
from vlapipe.schemas.errors import UsageError
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

LONG = (
    "first move the arm to the home pose and wait until it has come to rest then look at the table find the cup and "
    "take it with the hand and put it into the {} box"
)
CHINESE = "请先把机械臂移动到初始位置等待三秒钟然后看桌面找到红色的杯子把它拿起来放到{}的盒子里"


def run(data: Path, out: Path, **changes: Any) -> None:
    options = {"batch_size": 4, "max_steps": 2, "wandb": "disabled", "precision": "fp32", "num_workers": 0}
    train(TrainConfig.of(**options | {"data": data, "out": out, "policy_args": SMALL} | changes))


def answers(out: Path, data: Path, texts: list[str]) -> torch.Tensor:
    batch = next(iter(vlapipe.Loader(vlapipe.open_dataset(data), batch_size=1, shuffle=False)))
    policy = vlapipe.load_policy(out)
    return torch.stack([policy.act({**batch, "task": [text]}) for text in texts])


@pytest.mark.parametrize(("text", "words", "number"), [(LONG, ("left", "right"), 37), (CHINESE, ("左边", "右边"), 43)])
def test_instruction_that_is_cut_is_told_at_the_start_and_in_act_and_max_words_reads_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, words: tuple[str, str], number: int
) -> None:
    both = [text.format(word) for word in words]
    told = {"ep0": {"instruction": both[0]}, "ep1": {"instruction": ["push the ball", both[1]]}, "ep2": {}}
    ingest_lab(make_lab(tmp_path / "raw", told), tmp_path / "data", schema_text())
    run(tmp_path / "data", tmp_path / "run")
    said = [line for line in capfd.readouterr().err.splitlines() if "longer than" in line]
    assert len(said) == 1
    assert "2 of 4 instructions are longer than the 24 words that are read" in said[0]
    assert f"the longest has {number}" in said[0]
    assert f"max_words = {number} in policy_args" in said[0]
    with pytest.warns(UserWarning, match=f"act: 1 of 1 instructions are longer .* the longest has {number}: '"):
        left, right = answers(tmp_path / "run", tmp_path / "data", both)
    assert torch.equal(left, right)
    run(tmp_path / "data", tmp_path / "longer", policy_args={**SMALL, "max_words": number})
    assert "longer than" not in capfd.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left, right = answers(tmp_path / "longer", tmp_path / "data", both)
    assert not torch.equal(left, right)


def test_max_words_is_checked(tmp_path: Path) -> None:
    ingest_lab(make_lab(tmp_path / "raw", {"ep0": None}), tmp_path / "data", schema_text())
    with pytest.raises(UsageError, match="policy_args max_words: expected a whole number from 1, found 0"):
        run(tmp_path / "data", tmp_path / "run", policy_args={**SMALL, "max_words": 0})


def test_where_goes_with_the_run_and_its_resume(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = {f"ep{i}": {"success": i % 2 == 0, "operator": "ann" if i < 3 else "bob"} for i in range(6)}
    ingest_lab(make_lab(tmp_path / "raw", told), tmp_path / "data", schema_text())
    run(tmp_path / "data", tmp_path / "run", where="success")
    assert "train split: 33 frames" in capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["where"] == "success"
    train(TrainConfig.from_sources(None, {"out": str(tmp_path / "run"), "resume": True, "max_steps": 3}))
    assert "train split: 33 frames" in capfd.readouterr().err
    other = {"out": str(tmp_path / "run"), "resume": True, "max_steps": 4, "where": "not success"}
    with pytest.raises(UsageError, match="loader state: where was"):
        train(TrainConfig.from_sources(None, other))
    with pytest.raises(UsageError, match=r"where: no metadata key or column 'sucess' .did you mean 'success'"):
        run(tmp_path / "data", tmp_path / "other", where="sucess")
    with pytest.raises(UsageError, match="where: expected text, found 3"):
        run(tmp_path / "data", tmp_path / "other", where=3)


def test_where_that_leaves_no_training_episode_says_so(tmp_path: Path) -> None:
    raw = make_lab(tmp_path / "raw", {f"ep{i}": {"i": i} for i in range(8)})
    ingest_lab(raw, tmp_path / "data", schema_text(val=0.5))
    dataset = vlapipe.open_dataset(tmp_path / "data")
    held_out = next(i for i, split in enumerate(dataset.column("split")) if split == "val")
    with pytest.raises(UsageError, match=f"no training frame where i == {held_out}"):
        run(tmp_path / "data", tmp_path / "run", where=f"i == {held_out}")
