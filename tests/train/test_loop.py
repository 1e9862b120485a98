"""A real run on a real dataset learns, resumes exactly, validates only on held-out episodes, and stops in time."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_dataset
from launching import SMALL

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.schemas.errors import DamageError, UsageError, VlapipeError
from vlapipe.train.checkpoint.files import FOLDER, latest_checkpoint, read_checkpoint
from vlapipe.train.checkpoint.saved_policy import load_policy
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train
from vlapipe.train.report.metrics import METRICS_FILE, read_metrics
from vlapipe.train.result import print_train_result

EXACT = ("step", "train/loss", "train/learning_rate", "train/grad_norm", "val/loss")


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    options: dict[str, Any] = {
        "batch_size": 8,
        "max_steps": 6,
        "wandb": "disabled",
        "precision": "fp32",
        "num_workers": 1,
        "policy_args": SMALL,
    }
    return TrainConfig.of(data=data, out=out, **(options | changes))


def lines(out: Path) -> list[dict[str, Any]]:
    return read_metrics(out / METRICS_FILE)


def exact(out: Path) -> list[dict[str, Any]]:
    """What must be the same to the last bit."""
    return [{key: line.get(key) for key in EXACT} for line in lines(out)]


def test_run_leaves_metrics_checkpoint_and_config(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(config(tiny_dataset, out, eval_every=4))
    assert [line["step"] for line in lines(out)] == [1, 2, 3, 4, 5, 6]
    assert set(lines(out)[0]) == {
        *("step", "train/loss", "train/learning_rate", "train/grad_norm", "train/step", "train/samples_per_s"),
        *(f"time/{phase}_ms" for phase in ("data_wait", "ranks_wait", "h2d", "forward", "backward", "optimizer")),
        *("system/gpu_mem_GB", "system/gpu_busy_%", "system/cpu_mem_%"),
    }
    assert [line["step"] for line in lines(out) if "val/loss" in line] == [4, 6]
    assert result.checkpoint == latest_checkpoint(out) == out / FOLDER / "step-00000006"
    assert json.loads((out / "config.json").read_text())["data"]["batch_size"] == 8
    assert (result.step, result.stopped_by, result.precision, result.device) == (6, "", "fp32", "cpu")
    assert sum(result.phase_shares.values()) == pytest.approx(1.0)
    assert (result.first_loss, result.last_loss) == (lines(out)[0]["train/loss"], lines(out)[-1]["train/loss"])
    assert result.val_loss == lines(out)[-1]["val/loss"]
    assert not list(out.rglob(".vlapipe-tmp-*"))


def test_run_ends_after_its_epochs(tiny_dataset: Path, tmp_path: Path) -> None:
    frames = Loader(open_dataset(tiny_dataset), split="train", batch_size=1).num_frames
    result = train(config(tiny_dataset, tmp_path / "run", max_steps=None, epochs=0.5))
    assert result.step == result.max_steps == round(0.5 * frames / 8)


def test_loss_falls(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=300, learning_rate=3e-3, warmup_steps=5))
    losses = [json.loads(line)["train/loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    first, last = sum(losses[:20]) / 20, sum(losses[-20:]) / 20
    assert last < 0.8 * first  # its motions are random walks: little can be learned


@pytest.mark.parametrize("policy", ["regression", "policies_under_test:Noisy"])
def test_resume_is_exact_to_the_last_bit(tiny_dataset: Path, tmp_path: Path, policy: str) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    train(config(tiny_dataset, whole, save_every=3, eval_every=2, policy=policy))
    # As if it had been killed after step 6 was logged and before it was saved.
    shutil.copytree(whole, torn)
    shutil.rmtree(torn / FOLDER / "step-00000006")
    train(TrainConfig.from_sources(None, {"data": tiny_dataset, "out": torn, "resume": True}))
    assert exact(torn) == exact(whole)
    weights = [read_checkpoint(out / FOLDER / "step-00000006").part("policy").tensors for out in (whole, torn)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_same_seed_gives_the_same_run_and_another_seed_another(tiny_dataset: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(config(tiny_dataset, tmp_path / name, max_steps=2, seed=seed, deterministic=True))
    assert exact(tmp_path / "a") == exact(tmp_path / "b")
    assert exact(tmp_path / "a") != exact(tmp_path / "c")


def test_finished_run_is_resumed_without_another_step(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=2))
    before = exact(out)
    result = train(config(tiny_dataset, out, max_steps=2, resume=True))
    assert "nothing was left to do after step 2" in capsys.readouterr().err
    assert result.step == 2
    assert exact(out) == before
    assert train(config(tiny_dataset, out, max_steps=3, resume=True)).step == 3


def test_validation_is_the_mean_over_every_held_out_frame(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(config(tiny_dataset, out, max_steps=2, eval_batches=0, batch_size=7))
    policy = load_policy(out)
    loader = Loader(open_dataset(tiny_dataset), split="val", batch_size=10_000)
    [batch] = loader
    assert len(batch["task"]) == loader.num_frames > 7
    assert set(batch["episode_index"].tolist()).isdisjoint(
        e for b in Loader(open_dataset(tiny_dataset)) for e in b["episode_index"].tolist()
    )
    assert result.val_loss == pytest.approx(policy.loss(batch).mean.item(), rel=1e-5)  # type: ignore[operator]


def test_few_batches_of_a_validation_lie_all_over_the_split(
    tiny_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = {"policy": "policies_under_test:SaysWhatItValidates", "batch_size": 1, "max_steps": 1}
    train(config(tiny_dataset, tmp_path / "run", eval_batches=32, **policy))
    read = [json.loads(line[10:])[0] for line in capfd.readouterr().err.splitlines() if line.startswith("validates ")]
    num_frames = Loader(open_dataset(tiny_dataset), split="val").num_frames
    assert 32 < num_frames < 64
    assert read == [i * num_frames // 32 for i in range(32)]


def test_part_in_evaluation_mode_stays_so_after_a_validation(tiny_dataset: Path, tmp_path: Path) -> None:
    policy = {"policy": "policies_under_test:FrozenInEvaluationMode"}
    train(config(tiny_dataset, tmp_path / "run", max_steps=4, eval_every=2, **policy))


def test_validation_leaves_the_randomness_of_training_alone_and_repeats_its_own(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    losses = {}
    for name, changes in (
        ("often", {"eval_every": 1}),
        ("seldom", {"eval_every": 3}),
        ("still", {"learning_rate": 0.0}),
    ):
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)
        options: dict[str, Any] = {"policy": "policies_under_test:DrawsEverywhere", "max_steps": 3, "eval_every": 1}
        train(config(tiny_dataset, tmp_path / name, **options | changes))
        losses[name] = exact(tmp_path / name)
    assert [line["train/loss"] for line in losses["often"]] == [line["train/loss"] for line in losses["seldom"]]
    assert losses["often"][-1]["val/loss"] == losses["seldom"][-1]["val/loss"]
    assert len({line["val/loss"] for line in losses["still"]}) == 1


def test_loaded_policy_acts(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1))
    batch = next(iter(Loader(open_dataset(tiny_dataset), batch_size=3)))
    actions = vlapipe.load_policy(tmp_path / "run").act(batch)  # type: ignore[operator]
    assert actions.shape == batch["action"].shape
    assert (actions[..., -1] == 1.0).all()  # the gripper never moved


def test_policy_loads_without_the_optimizer_and_damage_to_its_own_weights_is_found(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    newest = train(config(tiny_dataset, tmp_path / "run", max_steps=1)).checkpoint
    assert newest is not None
    (newest / "optimizer.safetensors").write_bytes(b"torn")
    policy = load_policy(tmp_path / "run")
    assert {name for name, _ in policy.named_parameters()}
    weights = newest / "policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(DamageError, match=r"policy\.safetensors: its bytes have changed"):
        load_policy(tmp_path / "run")


def test_no_held_out_episode_is_said_and_nothing_is_validated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    ingest(IngestConfig(source=make_dataset(tmp_path / "raw", num_episodes=1), out=data))
    result = train(config(data, tmp_path / "run", max_steps=2))
    assert "val split: no episode, so nothing is validated" in capsys.readouterr().err
    assert result.val_loss is None
    assert not any("val/loss" in line for line in lines(tmp_path / "run"))


def test_batch_larger_than_the_train_split_is_refused_with_what_fits(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train split has only (\d+) frames \(give --batch-size \1 or less\)"):
        train(config(tiny_dataset, tmp_path / "run", batch_size=600))
    assert not (tmp_path / "run").exists()


def test_accumulated_batches_make_the_step_of_one_large_batch(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "one", max_steps=4, batch_size=16))
    train(config(tiny_dataset, tmp_path / "four", max_steps=4, batch_size=4, grad_accum=4))
    pairs = zip(lines(tmp_path / "one"), lines(tmp_path / "four"), strict=True)
    for one, four in pairs:
        assert four["train/loss"] == pytest.approx(one["train/loss"], rel=1e-4)
        assert four["train/grad_norm"] == pytest.approx(one["train/grad_norm"], rel=1e-2)


def test_used_folder_is_refused_without_resume(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not empty \(give a new folder\)"):
        train(config(tiny_dataset, out))
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_finished_run_is_refused_without_resume_and_told_of_it(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1))
    with pytest.raises(UsageError, match="add --resume to go on from it"):
        train(config(tiny_dataset, tmp_path / "run"))


def test_resume_without_a_checkpoint_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no checkpoint to resume from \(leave --resume away"):
        train(config(tiny_dataset, tmp_path / "run", resume=True))
    assert not (tmp_path / "run").exists()


def test_file_in_place_of_the_folder_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        train(config(tiny_dataset, tmp_path / "run"))


def test_resume_with_another_policy_is_refused_and_changes_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(tiny_dataset, out, max_steps=1))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="the weights do not fit the policy"):
        train(config(tiny_dataset, out, resume=True, policy_args=SMALL | {"dim": 64}))
    with pytest.raises(UsageError, match="seed was 0, is 5"):
        train(config(tiny_dataset, out, resume=True, seed=5))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("where", "message"),
    [("loss", "step 3: the loss is nan"), ("gradient", "step 3: the norm of the gradient is nan")],
)
def test_loss_that_is_not_finite_stops_before_the_weights_move(
    tiny_dataset: Path, tmp_path: Path, where: str, message: str
) -> None:
    out = tmp_path / "run"
    policy_args = SMALL | {"at": 3, "where": where}
    with pytest.raises(VlapipeError, match=message) as caught:
        train(config(tiny_dataset, out, policy="policies_under_test:NaNAtStep", policy_args=policy_args, save_every=1))
    *_, third = islice(Loader(open_dataset(tiny_dataset), batch_size=8, endless=True), 3)
    assert f"episode:frame {third['episode_index'][0]}:{third['frame_index'][0]}, " in str(caught.value)
    assert len(lines(out)) == 2


def test_signal_ends_the_run_after_its_step_with_a_checkpoint(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    policy = {"policy": "policies_under_test:SignalAtStep", "policy_args": SMALL | {"at": 2}}
    result = train(config(tiny_dataset, out, **policy))
    assert (result.step, result.stopped_by) == (2, "SIGTERM")
    assert "stopped by SIGTERM after step 2; the same command with --resume goes on" in capsys.readouterr().err
    assert result.checkpoint == out / FOLDER / "step-00000002"
    assert train(config(tiny_dataset, out, resume=True, **policy | {"policy_args": SMALL | {"at": 99}})).step == 6


def test_log_every_thins_the_lines_but_keeps_news(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=7, log_every=3, eval_every=4))
    assert [line["step"] for line in lines(tmp_path / "run")] == [3, 4, 6, 7]


def test_start_is_described(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=2, precision="auto"))
    said = capsys.readouterr()
    assert said.out == ""
    for part in ("device cpu", "1 rank", "fp32 (auto: on a CPU", "parameters", "observation.state (8, 100, 12)"):
        assert part in said.err
    assert re.search(r"^held back by .*, \d+ % of the time; a step took [\d,.]+ ms \(.*%\)$", said.err, re.MULTILINE)
    assert re.search(r"^try .*: \d+\.\d\d times as many samples/s .*$", said.err, re.MULTILINE)
    assert "GPUs" not in said.err  # advice that fits this machine


def test_gradient_checkpointing_and_bf16_run(tiny_dataset: Path, tmp_path: Path) -> None:
    result = train(config(tiny_dataset, tmp_path / "run", max_steps=2, precision="bf16", gradient_checkpointing=True))
    assert result.precision == "bf16"
    assert math.isfinite(result.last_loss)


def test_images_are_resized(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1, image_resize_height=16, image_resize_width=40))
    checkpoint = read_checkpoint(tmp_path / "run" / FOLDER / "step-00000001")
    assert checkpoint.state["spec"]["images"]["View1"] == [1, 3, 16, 40]


@pytest.mark.parametrize("seed", [1_234_567_890, 2**63 - 1])
def test_large_seed_trains(tiny_dataset: Path, tmp_path: Path, seed: int) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=1, seed=seed))
    assert train(config(tiny_dataset, tmp_path / "run", max_steps=2, seed=seed, resume=True)).step == 2


def test_last_words_are_true(tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"

    def last_words(max_steps: int, *, resume: bool = True) -> str:
        print_train_result(train(config(tiny_dataset, out, max_steps=max_steps, resume=resume)))
        said = capsys.readouterr()
        assert "nan" not in said.out + said.err
        assert ("nothing was left to do" in said.err) == said.out.startswith("already trained")
        return said.out.split(":")[0] + ("; speed" if "samples/s" in said.out else "")

    assert last_words(1, resume=False) == "trained 1 of 1 steps"  # the first step of a process is not timed
    assert last_words(2) == "trained 2 of 2 steps"
    assert last_words(4) == "trained 4 of 4 steps; speed"
    assert last_words(4) == "already trained"
    assert last_words(3) == "already trained"
