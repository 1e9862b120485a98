"""The worked examples of ``examples/policies`` keep the contract: they train, resume exactly, are loaded, and act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import losses_while_learning, make_batch, make_spec
from test_loop import config, lines

import vlapipe
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train
from vlapipe.train.policies.registry import build_policy

EXAMPLES = Path(__file__).parents[3] / "examples" / "policies"
POLICIES = {
    "act:ACTPolicy": {"dim": 16, "depth": 1, "num_heads": 2, "latent": 4},
    "diffusion:DiffusionPolicy": {"width": 16, "num_keypoints": 4, "act_steps": 3},
}


@pytest.mark.parametrize("name", POLICIES)
def test_example_trains_goes_on_exactly_and_acts(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(EXAMPLES)
    common: dict[str, Any] = {"policy": name, "policy_args": POLICIES[name], "decay_steps": 4, "warmup_steps": 1}
    train(config(tiny_dataset, tmp_path / "whole", max_steps=4, gradient_checkpointing=True, **common))
    train(config(tiny_dataset, tmp_path / "torn", max_steps=2, **common))
    train(config(tiny_dataset, tmp_path / "torn", max_steps=4, resume=True, **common))
    whole, torn = ([line["train/loss"] for line in lines(tmp_path / out)] for out in ("whole", "torn"))
    assert torn == pytest.approx(whole, rel=1e-6)
    policy: Any = vlapipe.load_policy(tmp_path / "torn")
    batch = next(iter(Loader(open_dataset(tiny_dataset), split="val", batch_size=3)))
    assert policy.act(batch).shape == batch["action"].shape


@pytest.mark.parametrize("name", POLICIES)
def test_example_learns_a_batch(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(EXAMPLES)
    torch.manual_seed(0)
    spec = make_spec(action=(7, 2))  # an odd horizon
    policy: Any = build_policy(name, spec, POLICIES[name])
    batch = make_batch(spec)
    losses = losses_while_learning(policy, batch, steps=60)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("name", POLICIES)
def test_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name.partition(':')[0]}.py").read_text().splitlines()) < 150
