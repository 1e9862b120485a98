"""A run takes arguments of its policy that suit how much there is to learn from, and keeps them ever after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from launching import SMALL, options
from synthetic import make_spec

import vlapipe
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train
from vlapipe.train.policies import built_in
from vlapipe.train.policies.flow import FlowPolicy
from vlapipe.train.policies.regression import RegressionPolicy

UNDECIDED = {name: value for name, value in SMALL.items() if name != "state_noise"}


def kept_arguments(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "config.json").read_text())["policy_args"]
    return found


def run(data: Path, out: Path, **changes: Any) -> None:
    chosen = {"max_steps": 2, "policy": "regression", "policy_args": UNDECIDED} | changes
    train(TrainConfig.of(**options(data, out, **chosen)))


@pytest.mark.parametrize("policy", [RegressionPolicy, FlowPolicy])
def test_maps_are_read_whole_where_there_are_enough_episodes(policy: type[built_in.BuiltInPolicy]) -> None:
    spec, blind = make_spec(), make_spec(images={})
    assert policy.arguments_for(spec, 399, {}, None) == {}
    assert policy.arguments_for(spec, 400, {}, None) == {"whole_map": True, "state_noise": 0.0}
    assert policy.arguments_for(spec, 400, {"whole_map": False, "state_noise": 0.2}, None) == {}
    assert policy.arguments_for(spec, 400, {"backbone": "resnet18"}, None) == {"state_noise": 0.0}
    assert policy.arguments_for(blind, 400, {}, {"whole_map": True}) == {}
    # Weights to begin with decide how images are read, and the episodes how much noise there is.
    assert policy.arguments_for(spec, 10, {}, {"whole_map": True, "state_noise": 0.0}) == {"whole_map": True}
    assert policy.arguments_for(spec, 400, {}, {}) == {"state_noise": 0.0}


def test_argument_is_told_and_kept_for_resuming_acting_and_beginning_with(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few, many, later = tmp_path / "few", tmp_path / "many", tmp_path / "later"
    run(tiny_dataset, few)
    assert kept_arguments(few) == UNDECIDED
    monkeypatch.setattr(built_in, "_MANY_EPISODES", 2)
    run(tiny_dataset, many)
    assert kept_arguments(many) == UNDECIDED | {"whole_map": True, "state_noise": 0.0}
    assert "policy regression: whole_map = True, state_noise = 0.0, chosen for 3 episodes" in capsys.readouterr().err
    run(tiny_dataset, few, resume=True, max_steps=4)  # takes nothing new
    assert kept_arguments(few) == UNDECIDED
    monkeypatch.setattr(built_in, "_MANY_EPISODES", 400)
    run(tiny_dataset, many, resume=True, max_steps=4)
    assert vlapipe.load_policy(many).images[0].whole is not None  # type: ignore[attr-defined]
    run(tiny_dataset, later, init=str(many))
    assert kept_arguments(later) == UNDECIDED | {"whole_map": True}
    assert f"whole_map = True, chosen for 3 episodes to learn from and {many}" in capsys.readouterr().err
