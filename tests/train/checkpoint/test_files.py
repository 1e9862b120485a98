"""A checkpoint is complete or absent. A damaged, unknown or newer checkpoint is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.schemas.errors import DamageError, NewerFormatError, VlapipeError
from vlapipe.train.checkpoint.files import FOLDER, Checkpoint, latest_checkpoint, read_checkpoint, write_checkpoint

STATE: dict[str, Any] = {"loader": {"position": 7}, "config": {}, "spec": {}}


def make(step: int, **changes: Any) -> Checkpoint:
    parts: dict[str, Any] = {
        "policy": {"weight": torch.arange(6.0).view(2, 3), "varies": torch.tensor([True, False])},
        "optimizer": {"weight|step": torch.tensor(3.0)},
        "rng": {"rank0/cpu": torch.get_rng_state()},
        "state": STATE,
    }
    return Checkpoint(step=step, **(parts | changes))


def edit_state(path: Path, **changes: Any) -> None:
    file = path / "state.json"
    state = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in state.items() if v is not None}))


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    written = make(200)
    path = write_checkpoint(tmp_path, written, keep=2)
    assert path.name == "step-00000200"
    read = read_checkpoint(path)
    assert read.step == 200
    for part in ("policy", "optimizer", "rng"):
        before, after = getattr(written, part), getattr(read, part)
        assert {k: (v.dtype, v.tolist()) for k, v in before.items()} == {
            k: (v.dtype, v.tolist()) for k, v in after.items()
        }
    assert read.state["loader"] == {"position": 7}


def test_tied_and_transposed_tensors_are_stored(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    path = write_checkpoint(tmp_path, make(1, policy={"a": weight, "b": weight, "c": weight.t()}), keep=1)
    policy = read_checkpoint(path).policy
    assert torch.equal(policy["b"], weight)
    assert torch.equal(policy["c"], weight.t())


def test_state_that_is_no_tensor_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VlapipeError, match="'extra' cannot be saved: it is a dict"):
        write_checkpoint(tmp_path, make(1, policy={"extra": {}}), keep=1)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_only_the_newest_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 10, 15, 100_000_000):
        write_checkpoint(tmp_path, make(step), keep=2)
    names = sorted(p.name for p in (tmp_path / FOLDER).iterdir())
    assert names == ["step-00000015", "step-100000000"]
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-100000000"


def test_same_step_again_replaces_it(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, make(5), keep=2)
    path = write_checkpoint(tmp_path, make(5, policy={"weight": torch.ones(1)}), keep=2)
    assert list(read_checkpoint(path).policy) == ["weight"]


def test_leftover_of_a_killed_run_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    left = tmp_path / FOLDER / f"{TEMP_PREFIX}1-step-00000099"
    left.mkdir(parents=True)
    (left / "policy.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, make(1), keep=1)
    assert not left.exists()


def test_what_the_user_put_there_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / FOLDER / "step-best"
    mine.mkdir(parents=True)
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, make(step), keep=1)
    assert mine.exists()


@pytest.mark.parametrize("name", ["policy", "optimizer", "rng"])
def test_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    file = path / f"{name}.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamageError, match=r"bytes have changed.*remove step-00000001"):
        read_checkpoint(path)


def test_cut_file_is_found(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    file = path / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamageError, match=r"expected \d+ bytes, found"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["policy.safetensors", "state.json"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    (path / name).unlink()
    with pytest.raises(DamageError, match=name):
        read_checkpoint(path)


def test_torn_state_is_damage(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    file = path / "state.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DamageError, match="cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("changes", [{"format": "other"}, {"version": "new"}, {"loader": None}, {"step": None}])
def test_unknown_state_is_damage(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    edit_state(path, **changes)
    with pytest.raises(DamageError, match=r"state\.json"):
        read_checkpoint(path)


def test_newer_version_says_so(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, make(1), keep=1)
    edit_state(path, version=2)
    with pytest.raises(NewerFormatError, match="checkpoint version 2, this vlapipe reads up to 1"):
        read_checkpoint(path)
