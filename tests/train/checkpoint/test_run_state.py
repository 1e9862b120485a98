"""A run's checkpoints: old ones resume, damaged ones are passed over, a thread may write them, the best one is kept."""

from __future__ import annotations

import pickle
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import options, run_ranks
from test_loop import config, exact, lines
from tiny_policy import WatchesSaves
from torch import Tensor

from vlapipe.schemas.errors import DamageError, UsageError, VlapipeError
from vlapipe.train.checkpoint import run_state
from vlapipe.train.checkpoint.commit import Plan, Snapshot
from vlapipe.train.checkpoint.files import (
    FOLDER,
    all_checkpoints,
    checkpoint_path,
    latest_checkpoint,
    open_checkpoint,
    read_checkpoint,
    step_of,
)
from vlapipe.train.checkpoint.saved_policy import load_policy
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

OLD_RUN = Path(__file__).with_name("run_of_version_1")
ROOM = Path(__file__).resolve().parents[3] / "train" / "checkpoint"
TINY = {"policy": "tiny_policy:TinyPolicy", "policy_args": {}, "batch_size": 4}


def tiny(data: Path, out: Path, **changes: Any) -> TrainConfig:
    return config(data, out, **(TINY | changes))


def steps(out: Path) -> list[int]:
    return [step_of(path) for path in all_checkpoints(out)]


def flip_last_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def weights(out: Path, step: int) -> dict[str, Tensor]:
    stored = read_checkpoint(checkpoint_path(out, step))
    return {f"{part}/{k}": v for part in ("policy", "optimizer") for k, v in stored.part(part).tensors.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_run_of_version_1_is_read_and_resumed(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(OLD_RUN, out)
    assert open_checkpoint(checkpoint_path(out, 3)).state["version"] == 1
    assert int(load_policy(out).num_batches) == 3  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no checkpoint was saved with val/loss"):
        load_policy(out, checkpoint="best")
    assert train(TrainConfig.from_sources(None, {"data": tiny_dataset, "out": out, "resume": True})).step == 6
    for line, before in zip(lines(out)[3:], lines(OLD_RUN)[3:], strict=True):
        assert line["train/loss"] == pytest.approx(before["train/loss"], rel=1e-5)
        assert line["train/learning_rate"] == pytest.approx(before["train/lr"], rel=1e-6)
    assert open_checkpoint(checkpoint_path(out, 6)).state["version"] == 2


@pytest.fixture(scope="module")
def finished(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps with three checkpoints, to be copied."""
    out = tmp_path_factory.mktemp("state") / "run"
    train(tiny(tiny_dataset, out, save_every=2, keep_checkpoints=3))
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def cut(checkpoint: Path) -> None:
    file = checkpoint / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES: dict[str, tuple[Any, str]] = {
    "flipped": (lambda path: flip_last_bit(path / "policy.safetensors"), "policy.safetensors: its bytes have changed"),
    "cut": (cut, "optimizer.safetensors: expected "),
    "missing": (lambda path: (path / "policy.safetensors").unlink(), "policy.safetensors: cannot be read: "),
    "state": (lambda path: (path / "state.json").write_text("{}"), "state.json: expected a vlapipe-checkpoint"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_it_resumes(
    run: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = exact(run)
    damage, said = DAMAGES[how]
    damage(checkpoint_path(run, 6))
    capsys.readouterr()
    assert train(TrainConfig.from_sources(None, {"out": run, "resume": True})).step == 6
    told = [line for line in capsys.readouterr().err.splitlines() if "damaged: " in line]
    assert len(told) == 1
    assert f"{checkpoint_path(run, 6)}/{said}" in told[0]
    assert told[0].endswith("set aside as step-00000006.damaged, the run goes on from step-00000004")
    assert exact(run) == before
    assert steps(run) == [2, 4, 6]


def test_two_damaged_checkpoints_are_passed_over_and_do_not_count_as_kept(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (4, 6):
        flip_last_bit(checkpoint_path(run, step) / "state.json")
    resumed = {"out": run, "resume": True, "save_every": 1, "max_steps": 3, "keep_checkpoints": 1, "keep_best": 0}
    assert train(TrainConfig.from_sources(None, resumed)).step == 3
    assert capsys.readouterr().err.count("damaged: ") == 2
    assert steps(run) == [3]
    assert sorted(path.name for path in (run / FOLDER).glob("*.damaged")) == [
        "step-00000004.damaged",
        "step-00000006.damaged",
    ]


def test_damage_of_every_checkpoint_is_one_error_and_changes_nothing(run: Path) -> None:
    for step in (2, 4, 6):
        flip_last_bit(checkpoint_path(run, step) / "policy.safetensors")
    said = r"no checkpoint is whole: .*00006/policy.*00004/policy.*00002/policy"
    with pytest.raises(DamageError, match=said) as error:
        train(TrainConfig.from_sources(None, {"out": run, "resume": True}))
    assert error.value.exit_code == 1
    assert steps(run) == [2, 4, 6]


def test_four_ranks_share_the_verification_and_pass_over_damage_together(run: Path, tiny_dataset: Path) -> None:
    # The last of the files, by name: another rank than rank 0 verifies it.
    flip_last_bit(checkpoint_path(run, 6) / "policy.safetensors")
    values = options(tiny_dataset, run, resume=True, save_every=2, keep_checkpoints=3, **TINY)
    ranks = run_ranks(values)
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    assert ranks[0].err.count("set aside as step-00000006.damaged, the run goes on from step-00000004") == 1
    assert not any("damaged" in rank.err for rank in ranks[1:])


@pytest.fixture(scope="module")
def sharded(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps by four ranks that share one copy of the policy, with a checkpoint in the middle."""
    out = tmp_path_factory.mktemp("sharded") / "run"
    ranks = run_ranks(options(tiny_dataset, out, parallel="fsdp", save_every=3, keep_checkpoints=9))
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    return out


def test_ranks_that_share_a_policy_write_their_shares_and_each_tensor_is_whole(sharded: Path) -> None:
    names = {path.name for path in checkpoint_path(sharded, 3).iterdir()}
    for part in ("policy", "optimizer"):
        assert {f"{part}-0000{i}-of-00004.safetensors" for i in range(1, 5)} < names
        assert f"{part}.safetensors.index.json" in names
    shapes = {name: tuple(value.shape) for name, value in load_policy(sharded).state_dict().items()}
    stored = read_checkpoint(checkpoint_path(sharded, 6)).part("policy").tensors
    assert {name: stored.shape(name) for name in stored} == shapes


@pytest.mark.parametrize(
    ("num_ranks", "parallel"),
    [
        pytest.param(4, "fsdp", marks=pytest.mark.slow),
        (2, "fsdp"),
        pytest.param(2, "ddp", marks=pytest.mark.slow),
        (1, "ddp"),
    ],
)
def test_shares_of_four_ranks_are_resumed_by_any_number_of_ranks_and_any_parallelism(
    sharded: Path, tiny_dataset: Path, tmp_path: Path, num_ranks: int, parallel: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(sharded, out)
    shutil.rmtree(checkpoint_path(out, 6))
    values = options(tiny_dataset, out, resume=True, parallel=parallel, batch_size=8 // num_ranks)
    ranks = run_ranks(values, num_ranks=num_ranks)
    assert [rank.code for rank in ranks] == [0] * num_ranks, ranks
    for line, before in zip(lines(out), lines(sharded), strict=True):
        assert line["train/loss"] == pytest.approx(before["train/loss"], rel=1e-5)
    before, after = weights(sharded, 6), weights(out, 6)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.allclose(after[name], value, rtol=1e-3, atol=1e-5), name


@pytest.mark.slow
def test_checkpoint_of_one_rank_is_resumed_by_ranks_that_share_the_policy(tiny_dataset: Path, tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    train(TrainConfig.from_sources(None, options(tiny_dataset, one, save_every=3, batch_size=8, keep_checkpoints=9)))
    shutil.copytree(one, four)
    shutil.rmtree(checkpoint_path(four, 6))
    ranks = run_ranks(options(tiny_dataset, four, resume=True, parallel="fsdp"))
    assert [rank.code for rank in ranks] == [0] * 4, ranks
    for line, before in zip(lines(four), lines(one), strict=True):
        assert line["train/loss"] == pytest.approx(before["train/loss"], rel=1e-5)


def test_state_that_is_no_tensor_is_refused_and_leaves_nothing(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(VlapipeError, match="policy state '_extra_state' cannot be saved: it is a dict"):
        train(tiny(tiny_dataset, out, policy="tiny_policy:WithExtraState", max_steps=1))
    assert not list((out / FOLDER).glob("*"))


def test_checkpoint_written_by_a_thread_is_that_of_its_step_though_the_run_goes_on(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = run_state.write_checkpoint

    def write_later(out: Path, snapshot: Snapshot, plan: Plan, **options: Any) -> Any:
        seen, deadline = WatchesSaves.num_seen, time.monotonic() + 60
        while snapshot.step < 12 and WatchesSaves.num_seen == seen:  # until the next step has computed
            assert time.monotonic() < deadline, "no step is made meanwhile"
            time.sleep(0.001)
        return write(out, snapshot, plan, **options)

    kept: dict[str, Any] = {"save_every": 4, "max_steps": 12, "keep_checkpoints": 9}
    kept |= {"policy": "tiny_policy:WatchesSaves", "policy_args": {"ballast_mb": 1}}
    before = WatchesSaves.num_seen
    train(tiny(tiny_dataset, tmp_path / "sync", **kept))
    assert WatchesSaves.num_seen == before
    monkeypatch.setattr(run_state, "write_checkpoint", write_later)
    result = train(tiny(tiny_dataset, tmp_path / "async", **kept, async_save=True))
    assert WatchesSaves.num_seen >= before + 2
    assert result.checkpoint == checkpoint_path(tmp_path / "async", 12)
    assert exact(tmp_path / "async") == exact(tmp_path / "sync")
    assert steps(tmp_path / "async") == [4, 8, 12]
    for step in (4, 8, 12):
        assert same(weights(tmp_path / "async", step), weights(tmp_path / "sync", step))


LIMITED = """
import json, resource, sys, train_main
values = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (values.pop("limit"), resource.RLIM_INFINITY))
sys.argv[1] = json.dumps(values)
train_main.main()
"""


@pytest.mark.parametrize("num_ranks", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_thread_that_cannot_write_ends_the_run_after_a_step_and_the_older_checkpoint_resumes(
    tiny_dataset: Path, tmp_path: Path, num_ranks: int
) -> None:
    out = tmp_path / "run"
    policy: dict[str, Any] = {"policy": "tiny_policy:WatchesSaves"}
    policy["policy_args"] = {"ballast_mb": 1, "waits_at": 60}  # so that the thread has failed by then
    train(tiny(tiny_dataset, out, max_steps=2, **policy))
    values = options(tiny_dataset, out, resume=True, save_every=50, max_steps=200, async_save=True, **policy)
    ranks = run_ranks(values | {"limit": 500_000}, num_ranks=num_ranks, code=LIMITED)
    assert [rank.code for rank in ranks] == [5] * num_ranks, ranks
    cure = "raise the limit (ulimit -f); the same command then goes on with --resume"
    assert ranks[0].err.splitlines()[-1] == f"vlapipe: {out}: no file may become so large here ({cure})"
    assert not any("vlapipe: " in rank.err for rank in ranks[1:])
    assert 49 <= lines(out)[-1]["step"] < 90  # it did not wait for its next save, in step 100
    assert int(load_policy(out).num_batches) == 2  # type: ignore[arg-type]
    assert train(TrainConfig.from_sources(None, {"out": out, "resume": True, "max_steps": 4})).step == 4


def test_best_checkpoint_is_kept_beside_the_newest_and_loaded(tiny_dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    # It learns, and then forgets: the rate is far too high for a decay of the weights by a hundredth.
    changes = {"max_steps": 40, "save_every": 4, "eval_every": 4, "learning_rate": 0.3, "warmup_steps": 0}
    train(tiny(tiny_dataset, out, keep_checkpoints=1, **changes))
    measured = {line["step"]: line["val/loss"] for line in lines(out) if "val/loss" in line}
    best = min(measured, key=lambda step: measured[step])
    assert steps(out) == sorted({best, 40})
    assert int(load_policy(out, checkpoint="best").num_batches) == best  # type: ignore[arg-type]
    assert int(load_policy(out).num_batches) == 40  # type: ignore[arg-type]
    newest = latest_checkpoint(out)
    assert newest is not None
    assert open_checkpoint(newest).state["metrics"]["val/loss"] == measured[40]


def test_best_checkpoint_is_that_of_any_metric_and_an_unknown_one_is_said(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"max_steps": 16, "save_every": 2, "keep_checkpoints": 1}
    out = tmp_path / "run"
    train(tiny(tiny_dataset, out, **changes, best_metric="train/grad_norm", best_is="highest"))
    norms = {line["step"]: line["train/grad_norm"] for line in lines(out)}
    best = max(range(2, 17, 2), key=lambda step: norms[step])
    assert steps(out) == sorted({best, 16})
    assert int(load_policy(out, checkpoint="best").num_batches) == best  # type: ignore[arg-type]
    assert "best_metric" not in capsys.readouterr().err
    train(tiny(tiny_dataset, tmp_path / "typo", **changes, best_metric="train/grad_nrom"))
    said = "best_metric 'train/grad_nrom': unknown (did you mean 'train/grad_norm'?)"
    assert capsys.readouterr().err.count(said) == 1
    assert steps(tmp_path / "typo") == [16]


def test_policy_without_an_average_says_so_if_one_is_asked_for(run: Path) -> None:
    with pytest.raises(UsageError, match=r"has no EMA \(leave ema=True away, or train with --ema\)"):
        load_policy(run, ema=True)
    with pytest.raises(UsageError, match=r"checkpoint 'newst': unknown \(did you mean 'newest'\?\)"):
        load_policy(run, checkpoint="newst")


def test_nothing_is_unpickled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ROOM.glob("*.py"):
        assert not re.search(r"\b(pickle|torch\.load|torch\.save)\b", file.read_text().split('"""', 2)[2]), file

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_policy(run)
    assert train(TrainConfig.from_sources(None, {"out": run, "resume": True, "max_steps": 8})).step == 8
