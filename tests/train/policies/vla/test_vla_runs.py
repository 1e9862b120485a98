"""Whole runs of the policy ``vla``: it learns, goes on exactly after a resume, and ranks share it as one."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import options, run_ranks
from test_loop import config, lines
from test_what_moves import moved
from tiny_backbones import save_tiny_backbone

import vlapipe
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import build, train
from vlapipe.train.policies.vla.inputs import IDS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_backbone("smolvlm", tmp_path_factory.mktemp("backbones") / "smolvlm")


def changes(backbone: Path, **args: Any) -> dict[str, Any]:
    return {"policy": "vla", "policy_args": {"backbone": str(backbone), **args}, "eval_batches": 0}


def test_resumed_run_is_exact_and_is_loaded(tiny_dataset: Path, tmp_path: Path, backbone: Path) -> None:
    """Also where the loss draws noise and times."""
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    common = {**changes(backbone), "learning_rate": 1e-2, "decay_steps": 8, "eval_every": 4, "warmup_steps": 1}
    [batch] = Loader(open_dataset(tiny_dataset), split="val", batch_size=10_000)
    train(config(tiny_dataset, whole, max_steps=8, **common))
    train(config(tiny_dataset, torn, max_steps=4, **common))
    train(config(tiny_dataset, torn, max_steps=8, resume=True, **common))
    policies: list[Any] = [vlapipe.load_policy(out) for out in (whole, torn)]
    for metric in ("train/loss", "val/loss"):
        assert [line.get(metric) for line in lines(torn)] == [line.get(metric) for line in lines(whole)]
    answers = [drawn_alike(policy.act, batch) for policy in policies]
    assert torch.equal(*answers)
    assert answers[0].shape == batch["action"].shape


def drawn_alike(function: Any, batch: Any) -> Any:
    torch.manual_seed(0)
    return function(batch)


def test_processor_runs_in_the_threads_of_the_loader(tiny_dataset: Path, tmp_path: Path, backbone: Path) -> None:
    with build(config(tiny_dataset, tmp_path / "run", **changes(backbone))) as run:
        names = set[str]()
        reader: Any = run.policy._reader
        processed = reader._processed
        reader._processed = lambda *args: (names.add(threading.current_thread().name), processed(*args))[1]
        batches = [next(run.batches) for _ in range(3)]
        assert all(IDS in batch for batch in batches)
        assert names
        assert threading.main_thread().name not in names


@needs_peft
def test_lora_trains_adapters_alone(tiny_dataset: Path, tmp_path: Path, backbone: Path) -> None:
    table = {"lora": {"targets": ["layers.*.backbone.self_attn.*"], "rank": 2}}
    by = moved(tiny_dataset, tmp_path / "run", **changes(backbone), trainable=table, learning_rate=1e-2)
    assert {name for name, distance in by.items() if distance} == {
        name for name in by if ".lora_" in name and not name.startswith("layers.1.backbone.self_attn.q_")
        and not name.startswith("layers.1.backbone.self_attn.o_")
    }  # fmt: skip
    assert sum(".lora_" in name for name in by) == 16


def test_backbone_stands_still_if_it_is_frozen(tiny_dataset: Path, tmp_path: Path, backbone: Path) -> None:
    by = moved(tiny_dataset, tmp_path / "run", **changes(backbone), trainable={"freeze": ["*backbone.*"]})
    of_backbone = {name for name in by if name.startswith("backbone.") or ".backbone." in name}
    assert not any(by[name] for name in of_backbone)
    assert by["head.weight"]
    assert by["layers.0.expert.query.weight"]


@pytest.mark.parametrize(
    ("kind", "recompute"),
    [
        ("fsdp", True),
        pytest.param("fsdp", False, marks=pytest.mark.slow),
        pytest.param("ddp", False, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_train_as_one(tiny_dataset: Path, tmp_path: Path, backbone: Path, kind: str, recompute: bool) -> None:
    common = {**changes(backbone, head="regression"), "max_steps": 4, "learning_rate": 1e-3}
    values = options(tiny_dataset, tmp_path / "two", batch_size=2, parallel=kind, **common)
    ranks = run_ranks(values | {"gradient_checkpointing": recompute}, num_ranks=2)
    assert [rank.code for rank in ranks] == [0] * 2, [rank.err for rank in ranks]
    train(config(tiny_dataset, tmp_path / "one", **common | {"batch_size": 4}))
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-5)
        assert b["train/grad_norm"] == pytest.approx(a["train/grad_norm"], rel=1e-4)
