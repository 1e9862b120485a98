"""Any module with ``loss`` and ``act`` trains, on one rank and on two; one that cannot be trained is told why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_loop import config, lines
from test_ranks import MAIN, options, two_ranks

from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint import read_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

POLICY = "policies_under_test:Odd"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("vector", r"loss\(batch\): expected a scalar, found a tensor of shape \(8,\) \(return its mean\(\)\)"),
        ("dict", r"loss\(batch\): expected a scalar tensor, found a dict \(return the total loss alone\)"),
        ("number", r"expected a scalar tensor, found a float"),
        ("whole", r"expected a floating-point scalar, found torch.int64"),
        ("detached", r"it has no gradient \(compute it from the policy's parameters"),
        ("no parameter", r"Odd: has no parameter to train"),
        ("frozen", r"Odd: has no parameter to train"),
        ("lazy", r"Odd: has lazy layers"),
    ],
)
def test_policy_that_cannot_be_trained_is_refused_in_one_line(
    tiny_dataset: Path, tmp_path: Path, kind: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        train(config(tiny_dataset, tmp_path / "run", policy=POLICY, policy_args={"kind": kind}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["one of one", "unused", "unused later"])
def test_odd_policy_trains_on_one_rank(tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    assert train(config(tiny_dataset, tmp_path / "run", policy=POLICY, policy_args={"kind": kind})).step == 6


@pytest.mark.parametrize("kind", ["unused", "used by one rank"])
def test_layer_that_the_loss_does_not_use_trains_on_two_ranks_as_on_one(
    tiny_dataset: Path, tmp_path: Path, kind: str
) -> None:
    changes = {"policy": POLICY, "policy_args": {"kind": kind}, "grad_accum": 2, "grad_clip": 0}
    both = two_ranks(str(MAIN), json.dumps(options(tiny_dataset, tmp_path / "two", **changes)))
    assert [rank.returncode for rank in both] == [0, 0], both
    result = train(TrainConfig.from_sources(None, options(tiny_dataset, tmp_path / "one", batch_size=8, **changes)))
    assert result.checkpoint is not None
    one, two = (
        read_checkpoint(tmp_path / name / result.checkpoint.relative_to(result.out)).policy for name in ("one", "two")
    )
    assert torch.allclose(one["layer.weight"], two["layer.weight"], atol=1e-3)
    assert torch.equal(one["spare.weight"], two["spare.weight"]) == (kind == "unused")
    if kind == "unused":
        for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
            assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)


def test_layer_that_is_used_in_some_steps_only_is_explained_on_two_ranks(tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {"policy": POLICY, "policy_args": {"kind": "unused later"}, "eval_every": 9}
    both = two_ranks(str(MAIN), json.dumps(options(tiny_dataset, tmp_path / "run", **changes)))
    assert all(rank.returncode != 0 for rank in both)
    assert any("reaches all parameters in some steps and not in others" in rank.stderr for rank in both), both
    assert len(lines(tmp_path / "run")) >= 2


def test_wrong_loss_on_two_ranks_is_said_once(tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {"policy": POLICY, "policy_args": {"kind": "vector"}}
    zero, one = two_ranks(str(MAIN), json.dumps(options(tiny_dataset, tmp_path / "run", **changes)))
    assert zero.stderr.endswith("(return its mean())\n")
    assert "Traceback" not in zero.stderr
    assert (zero.returncode, one.returncode, one.stderr) == (2, 2, "")
