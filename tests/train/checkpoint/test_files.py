"""A checkpoint is complete or absent. A damaged, unknown or newer checkpoint is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from making_checkpoints import edit_state, make, write

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.schemas.errors import DamageError, NewerFormatError
from vlapipe.train.checkpoint.commit import sweep, write_checkpoint
from vlapipe.train.checkpoint.files import FOLDER, StoredTensors, latest_checkpoint, read_checkpoint


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    written = make(200)
    path = write(tmp_path, written)
    assert path.name == "step-00000200"
    read = read_checkpoint(path)
    assert read.step == 200
    for part in ("policy", "optimizer", "rng"):
        before, after = written.parts[part].tensors, read.part(part).tensors
        assert {k: (v.dtype, v.tolist()) for k, v in before.items()} == {
            k: (v.dtype, v.tolist()) for k, v in after.items()
        }
    assert read.part("loader").values == {"position": 7}


def test_tensors_are_read_whole_or_by_slice(tmp_path: Path) -> None:
    named = {"matrix": torch.arange(12.0).view(4, 3), "scalar": torch.tensor(3), "empty": torch.zeros(0, 2)}
    tensors = read_checkpoint(write(tmp_path, make(1, policy=named))).part("policy").tensors
    assert isinstance(tensors, StoredTensors)
    assert tensors.shape("matrix") == (4, 3)
    assert torch.equal(tensors.read("matrix", slice(1, 3)), named["matrix"][1:3])
    assert torch.equal(tensors.read("matrix", (slice(0, 4), slice(2, 3))), named["matrix"][:, 2:])
    for name, value in named.items():
        assert torch.equal(tensors.read(name), value)
        assert torch.equal(tensors[name], value)


def test_same_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, make(5))
    path = write(tmp_path, make(5, policy={"weight": torch.ones(1)}))
    assert list(read_checkpoint(path).part("policy").tensors) == ["weight"]


def test_newest_is_found_by_its_step(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 100_000_000, 15):
        write(tmp_path, make(step))
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "step-100000000"


def test_leftover_of_a_killed_run_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    left = tmp_path / FOLDER / f"{TEMP_PREFIX}1-step-00000099"
    left.mkdir(parents=True)
    (left / "policy.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    sweep(tmp_path)
    assert not left.exists()


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    weight = torch.ones(4)
    with pytest.raises(RuntimeError, match="share"):
        write_checkpoint(tmp_path, make(1, optimizer={"a": weight, "b": weight}))
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize("name", ["policy", "optimizer", "rng"])
def test_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, make(1))
    file = path / f"{name}.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamageError, match=r"bytes have changed.*remove step-00000001"):
        read_checkpoint(path)


def test_cut_file_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, make(1))
    file = path / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamageError, match=r"expected \d+ bytes, found"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["policy.safetensors", "state.json"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, make(1))
    (path / name).unlink()
    with pytest.raises(DamageError, match=name):
        read_checkpoint(path)


def test_torn_state_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path, make(1))
    file = path / "state.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DamageError, match="cannot be read"):
        read_checkpoint(path)
    file.write_text('{"format": "vlapipe-checkpoint", "version": 2}')
    with pytest.raises(DamageError, match="bytes have changed"):
        read_checkpoint(path)


@pytest.mark.parametrize("changes", [{"format": "other"}, {"version": "new"}, {"parts": None}, {"step": None}])
def test_unknown_state_is_damage(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path, make(1))
    edit_state(path, lambda state: state.update(changes))
    with pytest.raises(DamageError, match=r"state\.json"):
        read_checkpoint(path)


def test_newer_version_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, make(1))
    edit_state(path, lambda state: state.update(version=3))
    with pytest.raises(NewerFormatError, match="checkpoint version 3, this vlapipe reads up to 2"):
        read_checkpoint(path)
