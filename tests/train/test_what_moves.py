"""What moves the weights in a real run: groups, schedules, EMA, trainable parts, LoRA, and another run's weights."""

from __future__ import annotations

import importlib.util
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_dataset
from launching import options, run_ranks
from test_loop import SMALL, config, lines
from torch import Tensor, nn

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.files import FOLDER, read_checkpoint
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import build, train, train_step

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
GROUPED = "policies_under_test:Grouped"


def weights(policy: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()}


def moved(data: Path, out: Path, num_steps: int = 2, **changes: Any) -> dict[str, float]:
    """How far each tensor moved in a run of some steps, by its largest entry."""
    with build(config(data, out, **changes)) as run:
        before = weights(run.policy)
        for _ in range(num_steps):
            train_step(run)
            run.step += 1
        after = weights(run.policy)
    return {name: float((after[name].float() - before[name].float()).abs().max()) for name in after}


def test_policys_groups_have_their_own_rates_and_frozen_ones_stand_still(tiny_dataset: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"num_steps": 1, "warmup_steps": 0, "weight_decay": 0.0, "grad_clip": 0}
    args = {**SMALL, "factor": 0.125, "frozen": "images"}
    by = moved(tiny_dataset, tmp_path / "run", policy=GROUPED, policy_args=args, learning_rate=3e-4, **common)
    assert by["head.weight"] == pytest.approx(3e-4, rel=1e-2)  # Adam's first step moves each entry by the rate
    assert by["trunk.blocks.0.mlp_in.weight"] == pytest.approx(3e-4 * 0.125, rel=1e-2)
    assert not any(by[name] for name in by if name.startswith("images."))


def test_parameter_in_no_group_ends_the_run_before_it_begins(tiny_dataset: Path, tmp_path: Path) -> None:
    args = {**SMALL, "left_out": "source"}
    with pytest.raises(UsageError, match=r"policy Grouped: parameter_groups\(\): in no group: source"):
        train(config(tiny_dataset, tmp_path / "run", policy=GROUPED, policy_args=args))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0]),
        ("wsd", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]),
        ("warmup-cosine", [0.5, 1.0, *(0.5 + 0.5 * math.cos(math.pi * i / 5) for i in range(6))]),
    ],
)
def test_steps_are_made_at_the_rates_of_the_schedule(
    tiny_dataset: Path, tmp_path: Path, schedule: str, rates: list[float]
) -> None:
    changes: dict[str, Any] = {"warmup_steps": 2, "min_lr_ratio": 0.0, "learning_rate": 1e-3}
    changes |= {"stable_steps": 3} if schedule == "wsd" else {}
    train(config(tiny_dataset, tmp_path / "run", max_steps=8, schedule=schedule, **changes))
    assert [line["train/learning_rate"] for line in lines(tmp_path / "run")] == pytest.approx(
        [1e-3 * rate for rate in rates]
    )


def test_ema_leaves_training_as_it_is_and_is_what_is_validated(tiny_dataset: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"learning_rate": 1e-2, "eval_batches": 0, "eval_every": 3}
    train(config(tiny_dataset, tmp_path / "plain", **common))
    with build(config(tiny_dataset, tmp_path / "expected", ema=0.9, ema_warmup=False, **common)) as run:
        average = {name: p.detach().clone() for name, p in run.policy.named_parameters()}
        for _ in range(6):
            train_step(run)
            run.step += 1
            average = {name: 0.9 * average[name] + 0.1 * p.detach() for name, p in run.policy.named_parameters()}
        run.policy.load_state_dict(average, strict=False)
        [batch] = Loader(open_dataset(tiny_dataset), split="val", batch_size=10_000)
        with torch.no_grad():
            expected = run.policy.eval().loss(batch).mean.item()  # type: ignore[operator]
    result = train(config(tiny_dataset, tmp_path / "averaged", ema=0.9, ema_warmup=False, **common))
    assert result.val_loss == pytest.approx(expected, rel=1e-5)
    plain, averaged = lines(tmp_path / "plain"), lines(tmp_path / "averaged")
    assert [line["train/loss"] for line in plain] == [line["train/loss"] for line in averaged]
    assert plain[-1]["val/loss"] != pytest.approx(averaged[-1]["val/loss"], rel=1e-3)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_step_that_is_not_finite_leaves_the_average_as_it_is(tiny_dataset: Path, tmp_path: Path, where: str) -> None:
    args = {**SMALL, "at": 3, "where": where}
    changes: dict[str, Any] = {"policy": "policies_under_test:NaNAtStep", "policy_args": args, "learning_rate": 1e-2}
    with build(config(tiny_dataset, tmp_path / "run", ema=0.9, **changes)) as run:
        assert run.ema is not None
        seen = []
        for _ in range(4):
            train_step(run)
            run.step += 1
            seen.append({name: average.clone() for name, average in run.ema.named_tensors().items()})
    assert not torch.equal(seen[0]["head.weight"], seen[1]["head.weight"])
    assert all(torch.equal(later[name], seen[1][name]) for later in seen[2:] for name in later)


def ema_of(checkpoint: Path) -> dict[str, Tensor]:
    return dict(read_checkpoint(checkpoint).part("ema").tensors)


def test_average_is_resumed_to_the_last_bit(tiny_dataset: Path, tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train(config(tiny_dataset, whole, save_every=3, eval_every=2, ema=0.9, learning_rate=1e-2))
    shutil.copytree(whole, torn)
    shutil.rmtree(torn / FOLDER / "step-00000006")
    train(TrainConfig.from_sources(None, {"data": tiny_dataset, "out": torn, "resume": True}))
    assert [line.get("val/loss") for line in lines(torn)] == [line.get("val/loss") for line in lines(whole)]
    averages = [ema_of(out / FOLDER / "step-00000006") for out in (whole, torn)]
    assert averages[0]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_loaded_policy_has_the_average_unless_asked_otherwise(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(config(tiny_dataset, out, ema=0.9, learning_rate=1e-2, eval_batches=0))
    [batch] = Loader(open_dataset(tiny_dataset), split="val", batch_size=10_000)
    with torch.no_grad():
        losses = [vlapipe.load_policy(out, ema=ema).loss(batch).mean.item() for ema in (None, False)]  # type: ignore[operator]
    assert losses[0] == pytest.approx(result.val_loss, rel=1e-5)
    assert losses[1] != pytest.approx(result.val_loss, rel=1e-5)


def test_average_that_begins_on_a_resume_begins_with_the_weights_of_the_checkpoint(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=3, learning_rate=1e-2))
    with build(config(tiny_dataset, out, max_steps=6, ema=0.9, resume=True)) as run:
        assert run.ema is not None
        averages, own = run.ema.named_tensors(), weights(run.policy)
        assert averages.keys() == {name for name, _ in run.policy.named_parameters()}
        assert all(torch.equal(average, own[name]) for name, average in averages.items())


def test_average_of_what_is_trained_anew_begins_with_its_weights(tiny_dataset: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "run", {"train": ["head.*"]}
    train(config(tiny_dataset, out, max_steps=3, learning_rate=1e-2, ema=0.9, trainable=table))
    stored = ema_of(out / FOLDER / "step-00000003")
    assert stored.keys() == {"head.weight", "head.bias"}
    with build(config(tiny_dataset, out, max_steps=6, ema=0.9, resume=True, trainable={})) as run:
        assert run.ema is not None
        averages, own = run.ema.named_tensors(), weights(run.policy)
        assert all(torch.equal(average, stored.get(name, own[name])) for name, average in averages.items())
        assert not torch.equal(averages["head.weight"], own["head.weight"])


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_four_ranks_with_groups_and_ema_train_as_one(tiny_dataset: Path, tmp_path: Path, parallel: str) -> None:
    changes: dict[str, Any] = {"policy": GROUPED, "policy_args": {**SMALL, "factor": 0.5, "frozen": "images"}}
    changes |= {"ema": 0.9, "max_steps": 4, "trainable": {"freeze": ["source"]}, "eval_every": 2}
    changes |= {"learning_rate": 1e-2, "warmup_steps": 0}
    ranks = run_ranks(options(tiny_dataset, tmp_path / "four", batch_size=1, parallel=parallel, **changes))
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    train(config(tiny_dataset, tmp_path / "one", batch_size=4, eval_batches=0, **changes))
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "four"), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)
        if a["step"] % 2 == 0:
            assert b["val/loss"] == pytest.approx(a["val/loss"], rel=1e-4)


def test_trainable_parts_move_and_the_rest_does_not(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {"train": ["head.*", "trunk.*"], "freeze": ["trunk.blocks.*"]}
    by = moved(tiny_dataset, tmp_path / "run", trainable=table)
    assert {name for name, distance in by.items() if distance} == {
        "head.weight", "head.bias", "trunk.norm.weight", "trunk.norm.bias"
    }  # fmt: skip
    assert ", 1,912 of them trained" in capsys.readouterr().err


def test_wrong_pattern_ends_the_run_before_it_begins(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[trainable\] freeze 'image.\*': matches nothing \(the nearest are 'images"):
        train(config(tiny_dataset, tmp_path / "run", trainable={"freeze": ["image.*"]}))
    assert not (tmp_path / "run").exists()


def test_more_may_be_frozen_on_a_resume(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=2))
    by = moved(tiny_dataset, out, max_steps=4, resume=True, trainable={"train": ["head.*"]})
    assert {name for name, distance in by.items() if distance} == {"head.weight", "head.bias"}
    assert "resumed otherwise: trainable is {'train': ['head.*']}, was {}" in capsys.readouterr().err
    by = moved(tiny_dataset, out, max_steps=4, resume=True, trainable={})
    assert by["trunk.norm.weight"]


@needs_peft
@pytest.mark.parametrize("ema", [None, 0.5])
def test_policy_trained_by_lora_is_loaded_without_peft_and_resumed(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    out = tmp_path / "run"
    table = {"train": ["head.*"], "lora": {"targets": ["trunk.*"], "rank": 4, "alpha": 2.0}}
    result = train(config(tiny_dataset, out, trainable=table, learning_rate=1e-2, eval_batches=0, ema=ema))
    [batch] = Loader(open_dataset(tiny_dataset), split="val", batch_size=10_000)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "peft", None)
        policy = vlapipe.load_policy(out)
    plain = {name for name, _ in policy.named_parameters()}
    assert "trunk.blocks.0.query.weight" in plain
    with torch.no_grad():
        assert policy.loss(batch).mean.item() == pytest.approx(result.val_loss, rel=1e-5)  # type: ignore[operator]
    by = moved(tiny_dataset, out, max_steps=8, resume=True, trainable=table, ema=ema)
    assert {name for name, distance in by.items() if distance} == {
        "head.weight",
        "head.bias",
        *(name for name in by if ".lora_" in name),
    }


@needs_peft
def test_four_ranks_train_lora_as_one(tiny_dataset: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"max_steps": 4, "trainable": {"lora": {"targets": ["trunk.*"]}}, "learning_rate": 1e-2}
    ranks = run_ranks(options(tiny_dataset, tmp_path / "four", batch_size=1, **changes))
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    train(config(tiny_dataset, tmp_path / "one", batch_size=4, eval_batches=0, **changes))
    for a, b in zip(lines(tmp_path / "one"), lines(tmp_path / "four"), strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on another dataset, which has other statistics and other shapes."""
    folder = tmp_path_factory.mktemp("other")
    make_dataset(folder / "raw", num_episodes=5, num_rows=80)
    ingest(IngestConfig(source=folder / "raw", out=folder / "data"))
    train(config(folder / "data", folder / "run", max_steps=2, learning_rate=1e-2))
    return folder / "run"


def test_run_begins_with_the_weights_of_another_and_the_statistics_of_its_own_data(
    tiny_dataset: Path, tmp_path: Path, other_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with build(config(tiny_dataset, tmp_path / "fresh")) as run:
        fresh = weights(run.policy)
    capsys.readouterr()
    with build(config(tiny_dataset, tmp_path / "run", init=other_run)) as run:
        begun = weights(run.policy)
    there = weights(vlapipe.load_policy(other_run))
    statistics = {name for name in begun if name.rpartition(".")[2] in ("mean", "std", "varies")}
    assert all(torch.equal(begun[name], there[name]) for name in begun.keys() - statistics)
    assert all(torch.equal(begun[name], fresh[name]) for name in statistics)
    assert any(not torch.equal(begun[name], there[name]) for name in statistics)
    said = capsys.readouterr().err
    num = len(begun) - len(statistics)
    assert f"init from {other_run}/checkpoints/step-00000002: {num} of {num} tensors fit; statistics are" in said


def test_init_takes_a_checkpoint_and_says_what_does_not_fit(
    tiny_dataset: Path, tmp_path: Path, other_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = other_run / "checkpoints" / "step-00000002"
    args = {**SMALL, "num_word_buckets": 32, "depth": 2}
    result = train(config(tiny_dataset, tmp_path / "run", init=checkpoint, policy_args=args, max_steps=1))
    said = capsys.readouterr().err
    assert "1 of another shape: instruction.table.weight (32, 64) here, (64, 64) there; " in said
    assert "only here: trunk.blocks.1.attention_norm.weight, " in said
    assert result.step == 1


def test_resumed_run_goes_on_without_the_run_that_it_began_with(
    tiny_dataset: Path, tmp_path: Path, other_run: Path
) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train(config(tiny_dataset, whole, init=other_run, max_steps=4, decay_steps=4))
    shutil.copytree(other_run, tmp_path / "other")
    train(config(tiny_dataset, torn, init=tmp_path / "other", max_steps=2, decay_steps=4))
    shutil.rmtree(tmp_path / "other")
    train(config(tiny_dataset, torn, init=tmp_path / "other", max_steps=4, decay_steps=4, resume=True))
    assert [line["train/loss"] for line in lines(torn)] == [line["train/loss"] for line in lines(whole)]


@pytest.mark.parametrize(
    ("init", "told"),
    [("empty", "empty: no checkpoint"), ("other", "no parameter fits the policy Odd")],
)
def test_init_that_gives_nothing_is_refused_in_one_line(
    tiny_dataset: Path, tmp_path: Path, other_run: Path, init: str, told: str
) -> None:
    (tmp_path / "empty").mkdir()
    changes: dict[str, Any] = {"policy": "policies_under_test:Odd", "policy_args": {"kind": "unused"}}
    path = tmp_path / "empty" if init == "empty" else other_run
    with pytest.raises(UsageError, match=told) as caught:
        train(config(tiny_dataset, tmp_path / "run", init=path, **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
